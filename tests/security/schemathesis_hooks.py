"""What Schemathesis has to be told besides: how JSON Lines are written."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def _lines(_: Any, value: Any) -> bytes:
    values = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(each) for each in values).encode()
