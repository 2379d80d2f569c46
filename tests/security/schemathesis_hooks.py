"""What Schemathesis has to be told besides: how JSON Lines are written, and that an archive is bytes."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def _lines(_: Any, value: Any) -> bytes:
    values = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(each) for each in values).encode()


@schemathesis.serializer("application/zip")
def _archive(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
