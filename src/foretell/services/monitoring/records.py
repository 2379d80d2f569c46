"""Records: stores and searches logs and metric values, and deletes old ones."""

from foretell.services.monitoring.intake.intake import Intake
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes.export import Export
from foretell.services.monitoring.routes.logs import Logs
from foretell.services.monitoring.routes.metrics import Metrics
from foretell.services.monitoring.routes.record_operations import paths, schemas
from foretell.services.monitoring.storage.retention import Retention


def part(surroundings: Surroundings) -> Part:
    """Records, as a part of the service."""
    database, settings = surroundings.database, surroundings.settings
    intake = Intake(database, settings)
    return Part(
        routes=[*Logs(database, intake).routes, *Metrics(database, intake).routes],
        run=Retention(database, settings).run,
        around=lambda app: Export(app, database),
        paths=paths,
        schemas=schemas,
        quiet=["/logs", "/metrics"],
    )
