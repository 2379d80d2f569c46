"""The operators' routes: `/admin/...`, behind `OperatorOnly`. Every change is recorded in the journal."""

from foretell.services.app.routes.admin import journal, models, predictions, queues, reports, users

MODULES = (journal, models, predictions, queues, reports, users)
