"""What ships for Prometheus, checked by Prometheus' own tool."""

import shutil
import subprocess
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from tests.deployed import PROMETHEUS, alert_rules

#: Default alerts of the product that Prometheus can't have: health is an answer of a service, and no metric.
_NO_METRIC = {"service_unhealthy"}

Check = Callable[..., str]


@pytest.fixture
def check(promtool: Path, tmp_path: Path) -> Check:
    """Runs promtool beside a copy of the files, and fails where it finds fault."""
    place = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, place, ignore=shutil.ignore_patterns("monitoring-token"))
    (place / "secrets").mkdir()
    for token in ("monitoring-token", "secrets/monitoring-token"):
        (place / token).write_text("a token")

    def check(*arguments: str) -> str:
        done = subprocess.run([promtool, *arguments], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return check


@pytest.mark.parametrize("configuration", ["prometheus.yml", "prometheus-compose.yml"])
def test_configuration(check: Check, configuration: str) -> None:
    # Its rule files are checked along with it.
    assert f"SUCCESS: {len(alert_rules())} rules found" in check("check", "config", configuration)


def test_rules_fire_when_they_should_and_only_then(check: Check) -> None:
    assert "SUCCESS" in check("test", "rules", "alerts_test.yml")


def test_every_rule_is_tested_firing_and_not_firing() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alert_rules()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_the_rules_are_the_default_alerts_of_the_product() -> None:
    defaults = files("foretell.services.monitoring.alerts").joinpath("defaults.toml").read_text()
    ours = {name: rule["severity"] for name, rule in tomllib.loads(defaults).items() if name not in _NO_METRIC}
    assert {rule["labels"]["rule"]: rule["labels"]["severity"] for rule in alert_rules()} == ours
