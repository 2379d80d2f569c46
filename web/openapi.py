"""Writes the OpenAPI document of the app to `openapi.json`, from which `npm run types` makes the types of the API."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from foretell.services.app.api import build_api
from foretell.services.app.settings import AppSettings


def document() -> dict[str, Any]:
    """As the app serves it under `/openapi.json`."""
    return build_api(cast("Any", SimpleNamespace(settings=AppSettings()))).openapi()


if __name__ == "__main__":
    target = Path(__file__).with_name("openapi.json")
    target.write_text(json.dumps(document(), indent=1), encoding="utf-8")
