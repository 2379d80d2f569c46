"""What ships in `deploy/` for Prometheus and Grafana, read as those who use it read it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Query:
    """One query of one panel."""

    where: str
    #: As Grafana would send it, with `window` for rates and every model and service.
    expression: str


def dashboard(place: Path) -> dict[str, Any]:
    """A dashboard, as JSON."""
    read: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return read


def panels(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that show something."""
    yield from (panel for panel in of["panels"] if panel["type"] != "row")


def queries(window: str) -> list[Query]:
    """Every query of every dashboard."""
    found = []
    for place in DASHBOARDS:
        for panel in panels(dashboard(place)):
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", window)
                expression = re.sub(r"\$(model|service)\b", ".*", expression)
                found.append(Query(f"{place.name}: {panel['title']} {target['refId']}", expression))
    return found


def alert_rules() -> list[dict[str, Any]]:
    """Every rule of `alerts.yml`."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]
