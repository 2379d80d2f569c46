"""What operators see and steer: `/admin/...`, behind `OperatorOnly`. Every act is a row of the journal."""

from foretell.services.app.routes.admin import journal, models, predictions, queues, reports, users

MODULES = (journal, models, predictions, queues, reports, users)
