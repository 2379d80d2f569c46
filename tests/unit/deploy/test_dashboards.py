"""Dashboards are what Grafana can read, and what people can."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deployed import DASHBOARDS, DEPLOY, dashboard, panels

#: Units of Grafana that our panels may have.
_UNITS = {"short", "s", "ops", "reqps", "bytes", "percentunit"}
#: A rate of something that is no counter, or a counter without a rate, says nothing.
_RATE = re.compile(r"(?:rate|increase)\((foretell_\w+|process_\w+)")
_COUNTERS = ("_total", "_bucket", "_sum", "_count")


def test_there_are_dashboards_and_no_two_are_taken_for_one_another() -> None:
    read = [dashboard(place) for place in DASHBOARDS]
    assert len(read) == 4
    assert len({each["uid"] for each in read}) == len({each["title"] for each in read}) == len(read)


@pytest.fixture(params=DASHBOARDS, ids=lambda place: place.name)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    place: Path = request.param
    return dashboard(place)


def test_it_has_what_grafana_needs(board: dict[str, Any]) -> None:
    assert board["schemaVersion"] >= 36
    # A number here would overwrite whatever has it in somebody's Grafana.
    assert board["id"] is None
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert board["description"]
    assert "foretell" in board["tags"]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$\{?(\w+)", str([panel["targets"] for panel in panels(board)])))
    assert used - {"__rate_interval", "datasource"} == variables.keys() - {"datasource"}


def test_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"] in _UNITS, panel["title"]
        steps = defaults["thresholds"]["steps"]
        assert steps[0]["value"] is None, panel["title"]
        values = [step["value"] for step in steps[1:]]
        assert values == sorted(values), panel["title"]
        assert panel["targets"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"], panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_queries_rate_counters_and_nothing_else(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            for name in _RATE.findall(target["expr"]):
                assert name.endswith(_COUNTERS), target["expr"]


def test_panels_have_their_own_place(board: dict[str, Any]) -> None:
    every = board["panels"]
    identifiers = [panel["id"] for panel in every]
    assert len(set(identifiers)) == len(identifiers)
    for panel in every:
        place = panel["gridPos"]
        assert place["w"] > 0
        assert place["h"] > 0
        assert 0 <= place["x"] <= 24 - place["w"], panel["title"]
    for one, other in combinations(every, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    down = one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
    return across and down


def test_grafana_finds_dashboards_and_prometheus() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())
    assert sources["apiVersion"] == 1
    (source,) = sources["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
    # The windows of rates are four times this wide: no less than one scrape must fit.
    scraping = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
    providers = yaml.safe_load((folder / "dashboards" / "foretell.yml").read_text())
    (provider,) = providers["providers"]
    assert provider["type"] == "file"
    # As the README mounts it.
    assert provider["options"]["path"] in (DEPLOY / "grafana" / "README.md").read_text()
