"""The OpenAPI document of the monitoring service, from the operations of all parts."""

from collections.abc import Iterable
from typing import Any

import foretell
from foretell.contracts.openapi import document, problem_answers
from foretell.services.monitoring.parts import Part

_DESCRIPTION = """\
What goes on in this installation: logs, metrics, how instances are, drift and alerts.

Where `FORETELL_MONITORING_TOKEN` is set, every call but those of `/health` and this page needs
`Authorization: Bearer TOKEN`. Problems are `application/problem+json` (RFC 9457).
"""


def openapi(parts: Iterable[Part], *, token_needed: bool) -> dict[str, Any]:
    """The document of all parts."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for part in parts:
        for path, operations in part.paths().items():
            paths.setdefault(path, {}).update(operations)
        schemas.update(part.schemas())
    page = document(
        title="Foretell monitoring service",
        version=foretell.__version__,
        description=_DESCRIPTION,
        paths=paths,
        schemas=schemas,
    )
    if token_needed:
        page["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        page["security"] = [{"token": []}]
        refused = problem_answers(401)
        page["paths"] = {
            path: {method: _with_answers(operation, refused) for method, operation in operations.items()}
            for path, operations in page["paths"].items()
        }
    return page


def _with_answers(operation: Any, answers: dict[str, Any]) -> Any:
    # A path may also have parameters beside its operations.
    is_operation = isinstance(operation, dict) and "responses" in operation
    return operation | {"responses": operation["responses"] | answers} if is_operation else operation
