"""Rules: those that ship, an operator's over them, and what is wrong with a file."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from foretell.contracts.reports.alert_rules import Texts
from foretell.services.monitoring.alerts.rule_files import Mistake, RuleFile, merged, shipped_tables
from foretell.services.monitoring.alerts.rules import FACTS, RuleBroken, filled, read_rule, written

#: A whole rule on a metric, as small as it can be.
BACKLOG = {"metric": "foretell_backlog", "above": 10}


def mistakes(tables: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.rule, each.field) for each in merged(shipped_tables(), tables, "rules.toml").mistakes]


def test_the_rules_that_ship_are_whole() -> None:
    rules = merged(shipped_tables(), {}, "").rules
    assert set(rules) >= {
        "service_down", "instance_down", "service_unhealthy", "service_absent", "queue_age", "queue_growing",
        "broker_trouble",
        "http_errors", "open_http_errors",
        "predictions_failing", "dead_letters", "ledger_out_of_balance", "audit_too_old", "drift",
        "disk_low", "log_lines_dropped", "prediction_latency", "http_latency",
    }  # fmt: skip
    for rule in rules.values():
        for texts in (rule.summary, rule.action):
            assert texts.en
            assert texts.ru
            assert texts.en != texts.ru
            # The page, the bot and the README say "прогноз".
            assert "предсказан" not in texts.ru.lower(), rule.name
        facts = set(FACTS.get(rule.signal, ()))
        told = {name for name in (*rule.subject_labels, *facts) if f"{{{name}}}" in rule.summary.en}
        assert told == {*rule.subject_labels, *facts}, f"{rule.name} does not say what it is about"
    ledger = rules["ledger_out_of_balance"]
    assert (ledger.severity, ledger.for_s) == ("critical", 0)


def test_of_a_rule_that_ships_only_what_is_said_anew_changes() -> None:
    shipped = merged(shipped_tables(), {}, "").rules
    tables = {"dead_letters": {"for_s": 5}, "drift": {"enabled": False}, "backlog": BACKLOG}
    rules = merged(shipped_tables(), tables, "").rules
    assert (rules["dead_letters"].for_s, rules["dead_letters"].above) == (5, shipped["dead_letters"].above)
    assert rules["dead_letters"].summary == shipped["dead_letters"].summary
    assert not rules["drift"].enabled
    assert rules["backlog"].threshold == 10
    assert {name: rule for name, rule in rules.items() if name in shipped and name not in tables} == {
        name: rule for name, rule in shipped.items() if name not in tables
    }


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"above": 120}, (120, 60)),
        ({"above": 120, "resolve_below": 100}, (120, 100)),
        ({"resolve_below": 10}, (60, 10)),
        ({"for_s": 1}, (60, 30)),
    ],
)
def test_another_threshold_takes_the_one_for_resolving_along(
    said: dict[str, float], expected: tuple[float, float]
) -> None:
    rule = merged(shipped_tables(), {"queue_age": said}, "").rules["queue_age"]
    assert (rule.above, rule.resolve_below) == expected


def test_a_condition_may_be_turned_around() -> None:
    rule = merged(shipped_tables(), {"queue_age": {"below": 3, "resolve_above": 4}}, "").rules["queue_age"]
    assert (rule.above, rule.below, rule.resolve_below, rule.resolve_above) == (None, 3, None, 4)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"metric": "m"}, "above"),
        ({"metric": "m", "above": 1, "below": 2}, "above"),
        ({**BACKLOG, "treshold": 3}, "treshold"),
        ({**BACKLOG, "above": "much"}, "above"),
        ({**BACKLOG, "above": float("nan")}, "above"),
        ({**BACKLOG, "above": float("inf")}, "above"),
        ({**BACKLOG, "resolve_below": 11}, "resolve_below"),
        ({**BACKLOG, "resolve_above": 9}, "resolve_above"),
        ({"metric": "m", "below": 5, "resolve_above": 4}, "resolve_above"),
        ({"metric": "m", "below": 5, "resolve_below": 4}, "resolve_below"),
        ({**BACKLOG, "for_s": -1}, "for_s"),
        ({**BACKLOG, "for_s": 1e9}, "for_s"),
        ({**BACKLOG, "window_s": 1}, "window_s"),
        ({**BACKLOG, "severity": "bad"}, "severity"),
        ({**BACKLOG, "kind": "sum"}, "kind"),
        ({**BACKLOG, "kind": "share"}, "part"),
        ({**BACKLOG, "part": {"status": "5*"}}, "part"),
        ({**BACKLOG, "quantile": 1}, "quantile"),
        ({**BACKLOG, "by": "queue"}, "by"),
        ({**BACKLOG, "by": ["no name"]}, "by"),
        ({**BACKLOG, "labels": {"queue": 3}}, "labels"),
        ({**BACKLOG, "labels": {"a b": "x"}}, "labels"),
        ({**BACKLOG, "metric": "no name"}, "metric"),
        ({"above": 1}, "metric"),
        ({**BACKLOG, "name": "other"}, "name"),
        ({**BACKLOG, "signal": "gut"}, "signal"),
        ({**BACKLOG, "signal": "drift"}, "metric"),
        ({**BACKLOG, "services": ["app"]}, "services"),
        ({**BACKLOG, "needed_by": ["app"]}, "needed_by"),
        ({"signal": "service_absent", "above": 0}, "services"),
        ({**BACKLOG, "no_data": "panic"}, "no_data"),
        ({**BACKLOG, "enabled": "yes"}, "enabled"),
        ({**BACKLOG, "summary": "text"}, "summary"),
        ({**BACKLOG, "summary": {"ru": "текст"}}, "summary.en"),
        ({**BACKLOG, "summary": {"en": "x", "de": "y"}}, "summary.de"),
        ({**BACKLOG, "summary": {"en": "{queue} waits"}}, "summary.en"),
        ({**BACKLOG, "summary": {"en": "{value.__class__}"}}, "summary.en"),
        ({**BACKLOG, "summary": {"en": "{value:>99999}"}}, "summary.en"),
        ({**BACKLOG, "summary": {"en": "{}"}}, "summary.en"),
        ({**BACKLOG, "summary": {"en": "half a {"}}, "summary.en"),
        ({**BACKLOG, "action": {"en": "x", "ru": "{nothing}"}}, "action.ru"),
        ({**BACKLOG, "action": {"en": "x" * 501}}, "action.en"),
        (3, ""),
        ([BACKLOG], ""),
    ],
)
def test_a_rule_that_does_not_fit_is_named_with_its_field_and_the_others_hold(fields: Any, field: str) -> None:
    found = merged(shipped_tables(), {"backlog": fields, "other": BACKLOG}, "rules.toml")
    assert [(each.file, each.rule, each.field) for each in found.mistakes] == [("rules.toml", "backlog", field)]
    assert found.mistakes[0].detail.endswith(".")
    assert "backlog" not in found.rules
    assert "other" in found.rules
    assert set(found.rules) >= set(shipped_tables())
    assert found.may_have("backlog")


@pytest.mark.parametrize("name", ["Backlog", "", "a b", "1a", "ü", "x" * 65])
def test_a_rules_name_is_plain(name: str) -> None:
    assert mistakes({name: BACKLOG}) == [(name, "")]


def test_a_rule_that_ships_holds_as_it_ships_when_the_change_does_not_fit() -> None:
    found = merged(shipped_tables(), {"queue_age": {"above": "soon"}}, "rules.toml")
    assert [(each.rule, each.field) for each in found.mistakes] == [("queue_age", "above")]
    assert found.rules["queue_age"] == merged(shipped_tables(), {}, "").rules["queue_age"]
    assert not found.may_have("queue_age")


def test_the_example_of_the_documentation_fits() -> None:
    page = (Path(__file__).parents[5] / "docs" / "monitoring.md").read_text(encoding="utf-8")
    (example,) = (block for block in page.split("```toml\n")[1:] if "[gpu_backlog]" in block)
    found = merged(shipped_tables(), tomllib.loads(example.partition("```")[0]), "example")
    assert not found.mistakes
    assert (found.rules["queue_age"].above, found.rules["queue_age"].resolve_below) == (300, 150)
    assert found.rules["gpu_backlog"].severity == "critical"
    named = {name for name in found.rules if f"`{name}`" in page} | {"gpu_backlog"}
    assert named == set(found.rules)


def test_texts_are_filled_and_nothing_else_happens_in_them() -> None:
    values = {"queue": "{value}", "value": "3"}
    assert filled("{queue} has {value}, {other}, {{x}}", values) == "{value} has 3, –, {x}"
    assert Texts("en").of("ru") == "en"
    rule = read_rule("r", {**BACKLOG, "by": ["queue"], "summary": {"en": "{queue} {value} {threshold} {window}"}})
    assert rule.summary.of("en").startswith("{queue}")
    with pytest.raises(RuleBroken):
        read_rule("r", {**BACKLOG, "summary": {"en": "{queue}"}})


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.125, "share", "12.5%"),
        (75, "seconds", "75 s"),
        (0.0123, "seconds", "12.3 ms"),
        (0, "seconds", "0 s"),
        (300, "seconds", "5 min"),
        (9000, "seconds", "2.5 h"),
        (172_800, "seconds", "2 d"),
        (1204, "count", "1,204"),
        (0.3333, "count", "0.333"),
        (3 * 1024**2, "bytes", "3 MiB"),
        (10, "bytes", "10 B"),
    ],
)
def test_numbers_are_written_for_people(value: float, unit: Any, expected: str) -> None:
    assert written(value, unit) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.125, "share", "12,5\u202f%"),
        (0.0123, "seconds", "12,3\u202fмс"),
        (75, "seconds", "75\u202fс"),
        (300, "seconds", "5\u202fмин"),
        (9000, "seconds", "2,5\u202fч"),
        (172_800, "seconds", "2\u202fдн."),
        (1_204_567, "count", "1\u202f204\u202f567"),
        (0.3333, "count", "0,333"),
        (3.5 * 1024**2, "bytes", "3,5\u202fМиБ"),
    ],
)
def test_numbers_are_written_for_russians(value: float, unit: Any, expected: str) -> None:
    assert written(value, unit, "ru") == expected


def test_the_file_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[queue_age]\nabove = 10\n")
    file = RuleFile(path)
    assert file.current.rules["queue_age"].above == 10
    assert not file.look()
    path.write_text("[queue_age]\nabove = 1000\n[backlog]\nmetric = 'm'\nabove = 1\n")
    assert file.look()
    assert file.current.rules["queue_age"].above == 1000
    assert "backlog" in file.current.rules
    assert not file.current.mistakes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[queue_age\nabove = 1", "line 1"),
        (b"\xff\xfe", "UTF-8"),
        (b"[a]\nx = 1\n[a]\nx = 2\n", "not TOML"),
        (b"a = " + b"[" * 20_000, ""),
        (b"#" * (1024 * 1024 + 1), "larger"),
    ],
    ids=["syntax", "encoding", "twice", "deep", "large"],
)
def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(content)
    file = RuleFile(path)
    assert file.current.rules == RuleFile(None).current.rules
    assert [(each.file, each.rule, each.field) for each in file.current.mistakes] == [(str(path), "", "")]
    assert words in file.current.mistakes[0].detail
    path.write_text("[backlog]\nmetric = 'm'\nabove = 1\n")
    assert file.look()
    path.write_bytes(content)
    assert file.look()
    assert "backlog" in file.current.rules
    assert file.current.may_have("one that may be in it")


def test_a_file_may_be_missing_and_come_later(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    file = RuleFile(path)
    assert file.current.mistakes == [Mistake(str(path), "", "", "The file can't be read: No such file or directory.")]
    assert str(file.current.mistakes[0]).startswith(str(path))
    assert not file.look()
    path.write_text("[queue_age]\nenabled = false\n")
    assert file.look()
    assert not file.current.rules["queue_age"].enabled
    assert not file.current.mistakes
    path.unlink()
    path.mkdir()
    assert file.look()
    assert not file.current.rules["queue_age"].enabled
    assert file.current.mistakes
