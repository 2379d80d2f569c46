"""The `errors` of a problem (RFC 9457) for a row: each with a pointer into the request's body."""

from typing import Any

from foretell.contracts.messages import Failure, Stage
from foretell.inference.package import ModelPackage
from foretell.kit.problems import pointer


def field_errors(
    package: ModelPackage, stage: Stage, row: Any, failure: Failure, *path: str | int
) -> list[dict[str, str]]:
    """The errors for `failure` of `row`, which is at `path` in the body."""
    problems = package.validator(stage).problems(row) if failure.code == "invalid_input" else []
    if problems:
        return [
            {"detail": f"{field or stage} {message}", "pointer": pointer(*path, *(field.split(".") if field else ()))}
            for field, message in problems
        ]
    # Preprocessing names the field as the first word (see `InvalidField`).
    field = failure.message.partition(" ")[0]
    known = isinstance(row, dict) and field in row
    return [{"detail": failure.message, "pointer": pointer(*path, *([field] if known else []))}]
