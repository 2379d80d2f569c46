"""Alerts over a real database: from what heartbeats say to what people are told, over time and restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from sqlalchemy import insert
from tests.integration.monitoring.alerting import Alerting, alerting, only

from foretell.kit.metrics import collect
from foretell.services.monitoring.alerts import signals, store
from foretell.services.monitoring.alerts.alert import subject_key
from foretell.services.monitoring.alerts.channels import Webhook
from foretell.services.monitoring.alerts.throttle import Throttle
from foretell.services.monitoring.storage.tables import drift_findings

#: A gauge with both thresholds and both times.
BACKLOG = {
    "metric": "backlog",
    "by": ["queue"],
    "above": 10,
    "resolve_below": 5,
    "for_s": 20,
    "resolve_for_s": 30,
}
AT_ONCE = BACKLOG | {"for_s": 0, "resolve_for_s": 0}


class Make(Protocol):
    def __call__(self, rules: str, throttle: Throttle = ...) -> AbstractAsyncContextManager[Alerting]: ...


@pytest.fixture
def make(monitoring_database_url: str, tmp_path: Path) -> Make:
    """Alerting that writes for one webhook, and sends nothing by itself."""
    channel = Webhook("http://127.0.0.1:9/hook", None, "en", 1.0)

    def made(rules: str, throttle: Throttle = Throttle()) -> AbstractAsyncContextManager[Alerting]:  # noqa: B008
        return alerting(monitoring_database_url, tmp_path, rules, {channel.name: channel}, throttle)

    return made


@pytest.fixture
async def backlog(make: Make) -> AsyncIterator[Alerting]:
    async with make(only(backlog=BACKLOG)) as house:
        yield house


@pytest.fixture
async def at_once(make: Make) -> AsyncIterator[Alerting]:
    async with make(only(backlog=AT_ONCE)) as house:
        yield house


def series(name: str) -> dict[tuple[str, ...], float]:
    """What this process measures."""
    for family in collect():
        if family.name == name:
            return {tuple(each.labels.values()): each.value for each in family.series}
    return {}


# From pending to resolved


async def test_an_alert_waits_fires_and_is_over_and_people_are_told_twice(backlog: Alerting) -> None:
    dispatcher = backlog.process()
    dispatcher.set("backlog", 11, queue="q")
    await backlog.step()
    assert await backlog.states() == {"backlog": "pending"}
    await backlog.pass_time(15)
    assert await backlog.states() == {"backlog": "pending"}
    assert await backlog.told() == []
    await backlog.step()
    assert await backlog.states() == {"backlog": "firing"}
    dispatcher.set("backlog", 7, queue="q")
    await backlog.step(60)
    assert await backlog.states() == {"backlog": "firing"}
    dispatcher.set("backlog", 4, queue="q")
    await backlog.pass_time(30)
    assert await backlog.states() == {"backlog": "firing"}
    await backlog.step()
    assert await backlog.states() == {}
    assert await backlog.told() == [[("backlog", "firing", 1)], [("backlog", "resolved", 1)]]
    (over,) = await backlog.resolved()
    assert (over.subject, over.alert.reason, over.alert.value) == ({"queue": "q"}, "cleared", 4)
    await backlog.step(600)
    assert len(await backlog.told()) == 2


async def test_what_was_short_is_forgotten(backlog: Alerting) -> None:
    dispatcher = backlog.process()
    for _ in range(5):
        dispatcher.set("backlog", 11, queue="q")
        await backlog.pass_time(15)
        dispatcher.set("backlog", 10, queue="q")
        await backlog.step()
    assert (await backlog.states(), await backlog.resolved(), await backlog.told()) == ({}, [], [])


async def test_every_subject_has_its_own_alert_and_one_message_tells_of_all(at_once: Alerting) -> None:
    dispatcher = at_once.process()
    for queue in ("a", "b", "c"):
        dispatcher.set("backlog", 11, queue=queue)
    dispatcher.set("backlog", 3, queue="d")
    await at_once.step()
    (payload,) = await at_once.payloads()
    assert [each["subject"]["queue"] for each in payload["data"]["alerts"]] == ["a", "b", "c"]
    dispatcher.set("backlog", 1, queue="b")
    dispatcher.set("backlog", 20, queue="d")
    await at_once.step()
    assert (await at_once.told())[1] == [("backlog", "firing", 1), ("backlog", "resolved", 1)]


# Restarts


async def test_a_restart_tells_nobody_again_and_forgets_no_end(at_once: Alerting) -> None:
    dispatcher = at_once.process()
    dispatcher.set("backlog", 11, queue="q")
    await at_once.step()
    (before,) = (await at_once.open()).values()
    at_once.start(grace_s=60)
    await at_once.step(30)
    await at_once.step(90)
    (after,) = (await at_once.open()).values()
    assert (after.alert.id, after.alert.fired_at) == (before.alert.id, before.alert.fired_at)
    at_once.start(grace_s=60)
    dispatcher.set("backlog", 1, queue="q")
    await at_once.pass_time(65)
    assert await at_once.told() == [[("backlog", "firing", 1)], [("backlog", "resolved", 1)]]


async def test_a_restart_does_not_begin_to_wait_anew(backlog: Alerting) -> None:
    dispatcher = backlog.process()
    dispatcher.set("backlog", 11, queue="q")
    await backlog.pass_time(15)
    backlog.start()
    await backlog.pass_time(10)
    assert await backlog.states() == {"backlog": "firing"}


async def test_in_the_first_minute_nothing_is_missing_and_afterwards_it_is(make: Make) -> None:
    async with make(only("service_down", "service_absent", "instance_down")) as house:
        app = house.process("app", "app-1")
        gone = house.process("ml_worker", "w-1")
        house.process()
        await house.pass_time(20)
        # Nobody beats while monitoring is away.
        house.at += timedelta(minutes=10)
        app.silent = gone.silent = True
        house.start(grace_s=60)
        await house.pass_time(55)
        assert await house.states() == {}
        app.silent = False
        await house.pass_time(30)
        assert {each.alert.subject for each in (await house.open()).values()} >= {'{"service":"ml_worker"}'}
        told = [each for message in await house.told() for each in message]
        assert ("service_down", "firing", 1) in told
        assert not any(state == "resolved" for _, state, _ in told)


async def test_with_nothing_to_see_nothing_fires(make: Make) -> None:
    async with make("") as house:
        house.start(grace_s=60)
        for _ in range(5):
            await house.step(60)
        assert (await house.states(), house.evaluator.failing) == ({}, {})


# Flapping


async def test_what_flaps_is_told_once_in_a_while_and_how_often_it_changed(make: Make) -> None:
    async with make(only(backlog=AT_ONCE), Throttle(damping_s=50, messages_per_hour=1000)) as house:
        dispatcher = house.process()
        for _ in range(10):
            dispatcher.set("backlog", 11, queue="q")
            await house.step()
            dispatcher.set("backlog", 1, queue="q")
            await house.step()
        told = await house.told()
        assert told[:2] == [[("backlog", "firing", 1)], [("backlog", "resolved", 1)]]
        # In the next interval: all that happened since, and its end.
        assert told[2:] == [[("backlog", "firing", 9)], [("backlog", "resolved", 1)]]
        await house.step(50)
        # In the end they know how it is.
        assert (await house.told())[-1][0][1] == "resolved"
        total = sum(each[0][2] for each in await house.told())
        assert total == 20
        assert len(await house.resolved()) == 10


async def test_what_flapped_and_stays_is_told_when_the_interval_is_over(at_once: Alerting) -> None:
    dispatcher = at_once.process()
    for value in (11, 1, 11):
        dispatcher.set("backlog", value, queue="q")
        await at_once.step()
    assert len(await at_once.told()) == 2
    at_once.start()
    await at_once.step(285)
    assert len(await at_once.told()) == 2
    await at_once.step()
    assert (await at_once.told())[2:] == [[("backlog", "firing", 1)]]
    dispatcher.set("backlog", 1, queue="q")
    await at_once.step()
    assert (await at_once.told())[3:] == [[("backlog", "resolved", 1)]]


async def test_so_many_messages_an_hour_and_then_one_of_all_that_was_held_back(make: Make) -> None:
    async with make(only(backlog=AT_ONCE), Throttle(damping_s=0, messages_per_hour=10)) as house:
        dispatcher = house.process()
        for number in range(12):
            dispatcher.set("backlog", 11, queue=f"q{number}")
            await house.step()
        told = await house.told()
        assert len(told) == 8
        assert all(len(message) == 1 for message in told)
        dispatcher.set("backlog", 1, queue="q11")
        await house.step()
        house.start()
        await house.step(3600)
        (payload,) = (await house.payloads())[8:]
        assert len(payload["data"]["alerts"]) == 4
        over = [(each["subject"]["queue"], each["changes"]) for each in payload["data"]["alerts"]
                if each["state"] == "resolved"]  # fmt: skip
        assert over == [("q11", 2)]


async def test_a_message_that_waited_says_since_when(make: Make) -> None:
    async with make(only(backlog=AT_ONCE), Throttle(damping_s=0, messages_per_hour=1)) as house:
        dispatcher = house.process()
        dispatcher.set("backlog", 11, queue="a")
        await house.step()
        dispatcher.set("backlog", 11, queue="b")
        await house.step()
        since = house.at
        await house.step(3600)
        first, second = await house.payloads()
        assert first["data"]["held_since"] is None
        assert second["data"]["held_since"] == since.isoformat().replace("+00:00", "Z")


# Silences


async def silence(house: Alerting, minutes: float, queue: str = "q") -> None:
    async with house.database.transaction() as connection:
        key = ("backlog", subject_key({"queue": queue}))
        await store.silence(connection, key, house.at + timedelta(minutes=minutes))


async def test_of_what_is_silenced_nobody_is_told_until_then(at_once: Alerting) -> None:
    dispatcher = at_once.process()
    await silence(at_once, 10)
    dispatcher.set("backlog", 11, queue="q")
    dispatcher.set("backlog", 11, queue="loud")
    await at_once.step()
    (payload,) = await at_once.payloads()
    assert [each["subject"]["queue"] for each in payload["data"]["alerts"]] == ["loud"]
    for value in (1, 11, 1, 11):
        dispatcher.set("backlog", value, queue="q")
        await at_once.step()
    at_once.start()
    await at_once.step(570)
    assert len(await at_once.told()) == 1
    await at_once.pass_time(10)
    # What is wrong still is told, as if it began now; what came and went meanwhile is not.
    assert (await at_once.told())[1:] == [[("backlog", "firing", 1)]]


async def test_what_was_told_and_ends_while_it_is_silenced_is_told_to_be_over(at_once: Alerting) -> None:
    dispatcher = at_once.process()
    dispatcher.set("backlog", 11, queue="q")
    await at_once.step()
    await silence(at_once, 5)
    dispatcher.set("backlog", 1, queue="q")
    await at_once.pass_time(60)
    assert len(await at_once.told()) == 1
    await silence(at_once, 0)
    await at_once.step()
    assert (await at_once.told())[1:] == [[("backlog", "resolved", 1)]]


# Rules that change


async def test_rules_may_change_while_alerts_are_open(backlog: Alerting) -> None:
    dispatcher = backlog.process()
    dispatcher.set("backlog", 11, queue="q")
    await backlog.pass_time(25)
    backlog.rules.write_text(only(backlog=BACKLOG | {"above": "nonsense"}))
    await backlog.step(60)
    await backlog.step(60)
    assert await backlog.states() == {"backlog": "firing"}
    assert [(each.rule, each.field) for each in backlog.evaluator.rules.current.mistakes] == [("backlog", "above")]
    backlog.rules.write_text("[backlog")
    backlog.start()
    await backlog.step(60)
    await backlog.step(60)
    assert await backlog.states() == {"backlog": "firing"}
    backlog.rules.write_text(only(backlog=BACKLOG | {"severity": "critical"}))
    await backlog.step()
    assert (await backlog.open())["backlog"].alert.severity == "critical"
    backlog.rules.write_text(only(backlog=BACKLOG | {"enabled": False}))
    await backlog.step()
    assert await backlog.states() == {}
    assert await backlog.told() == [[("backlog", "firing", 1)], [("backlog", "resolved", 1)]]
    assert (await backlog.resolved())[0].alert.reason == "rule_off"


async def test_a_rule_that_fails_is_seen_and_stops_no_other(backlog: Alerting, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"metric": "backlog", "kind": "quantile", "above": 1}
    backlog.rules.write_text(only(backlog=BACKLOG, wrong=wrong))
    dispatcher = backlog.process()
    dispatcher.set("backlog", 11, queue="q")
    failures = series("foretell_alert_rule_failures_total").get(("wrong",), 0)
    await backlog.pass_time(25)
    assert await backlog.states() == {"backlog": "firing"}
    assert set(backlog.evaluator.failing) == {"wrong"}
    assert "quantile" in backlog.evaluator.failing["wrong"]
    assert series("foretell_alert_rule_failures_total")[("wrong",)] == failures + 5

    # A rule that fails tells nothing, so what it had found stays as it was.
    def fail(*_: Any) -> None:
        raise RuntimeError("broken in a way nobody foresaw")

    with monkeypatch.context() as patch:
        patch.setattr(signals, "measure", fail)
        await backlog.step(600)
        await backlog.step()
    assert await backlog.states() == {"backlog": "firing"}
    assert "nobody foresaw" in backlog.evaluator.failing["backlog"]
    backlog.rules.write_text(only(backlog=BACKLOG))
    await backlog.step()
    assert backlog.evaluator.failing == {}


async def test_the_gauge_shows_what_is_open_and_nothing_that_is_gone(backlog: Alerting) -> None:
    dispatcher = backlog.process()
    dispatcher.set("backlog", 11, queue="q")
    await backlog.step()
    shown = series("foretell_alerts")
    assert shown[("backlog", "warning", "pending")] == 1
    assert shown[("backlog", "warning", "firing")] == 0
    await backlog.pass_time(20)
    assert series("foretell_alerts")[("backlog", "warning", "firing")] == 1
    backlog.rules.write_text(only("queue_age"))
    await backlog.step()
    assert {labels[0] for labels in series("foretell_alerts")} == {"queue_age"}


# The rules that ship


async def test_a_worker_that_dies_is_missed_until_it_or_another_is_there(make: Make) -> None:
    async with make(only("service_down", "instance_down")) as house:
        house.process("ml_worker", "w-1")
        dying = house.process("ml_worker", "w-2")
        await house.pass_time(30)
        dying.silent = True
        await house.pass_time(60)
        assert await house.states() == {"instance_down": "firing"}
        (payload,) = await house.payloads()
        assert payload["data"]["alerts"][0]["subject"] == {"service": "ml_worker", "instance": "w-2"}
        assert "2026-05-01 12:00:30 UTC" in payload["data"]["alerts"][0]["summary"]["ru"]
        house.process("ml_worker", "w-3")
        await house.pass_time(20)
        assert await house.states() == {}
        assert [message[0][1] for message in await house.told()] == ["firing", "resolved"]


async def test_the_same_process_may_come_back(make: Make) -> None:
    async with make(only("service_down", "instance_down")) as house:
        house.process("app", "app-1")
        app = house.process("app", "app-2")
        await house.pass_time(30)
        app.silent = True
        await house.pass_time(60)
        assert await house.states() == {"instance_down": "firing"}
        app.silent = False
        await house.pass_time(20)
        assert await house.states() == {}


async def test_whoever_says_goodbye_is_not_missed_but_a_service_is(make: Make) -> None:
    async with make(only("service_down", "instance_down")) as house:
        one, two = house.process("ml_worker", "w-1"), house.process("ml_worker", "w-2")
        await house.pass_time(30)
        await house.stop(two)
        await house.pass_time(120)
        assert await house.states() == {}
        await house.stop(one)
        await house.pass_time(55)
        assert await house.states() == {}
        await house.pass_time(30)
        assert await house.states() == {"service_down": "firing"}
        house.process("ml_worker", "w-9")
        await house.pass_time(20)
        assert await house.states() == {}
        told = [message[0] for message in await house.told()]
        assert told == [("service_down", "firing", 1), ("service_down", "resolved", 1)]


async def test_all_of_a_service_dying_at_once_is_one_alert(make: Make) -> None:
    async with make(only("service_down", "instance_down")) as house:
        workers = [house.process("ml_worker", f"w-{number}") for number in range(5)]
        await house.pass_time(30)
        for each in workers:
            each.silent = True
        await house.pass_time(120)
        assert await house.told() == [[("service_down", "firing", 1)]]


async def test_a_ledger_out_of_balance_fires_at_once_and_stays_while_nobody_can_tell(make: Make) -> None:
    async with make(only("ledger_out_of_balance")) as house:
        house.start(grace_s=60)
        dispatcher = house.process()
        dispatcher.set("foretell_ledger_findings", 2)
        await house.step()
        (payload,) = await house.payloads()
        (told,) = payload["data"]["alerts"]
        assert (told["rule"], told["severity"], told["state"]) == ("ledger_out_of_balance", "critical", "firing")
        assert "2 places" in told["summary"]["en"]
        dispatcher.silent = True
        await house.pass_time(300)
        assert await house.states() == {"ledger_out_of_balance": "no_data"}
        again = house.process("dispatcher", "d-2")
        again.set("foretell_ledger_findings", 0)
        await house.step()
        assert await house.states() == {}
        assert [message[0][1] for message in await house.told()] == ["firing", "resolved"]


async def test_what_an_instance_measured_ends_with_it(make: Make) -> None:
    async with make(only(backlog=BACKLOG)) as house:
        worker = house.process("ml_worker", "w-1")
        worker.set("backlog", 11, queue="q")
        await house.pass_time(25)
        await house.stop(worker)
        await house.pass_time(60)
        assert await house.states() == {"backlog": "firing"}
        await house.pass_time(10)
        assert [(each.alert.rule, each.alert.reason) for each in await house.resolved()] == [("backlog", "no_data")]


async def test_errors_from_before_monitoring_heard_of_a_process_are_no_news(make: Make) -> None:
    async with make(only("http_errors")) as house:
        app = house.process("app", "app-1")
        labels = {"route": "/predictions/predict", "method": "POST"}
        app.set("foretell_http_requests_total", 1000, "counter", status="500", **labels)
        app.set("foretell_http_requests_total", 10, "counter", status="202", **labels)
        app.started_at -= timedelta(hours=3)
        await house.pass_time(240)
        assert (await house.states(), house.evaluator.failing) == ({}, {})
        app.set("foretell_http_requests_total", 1010, "counter", status="500", **labels)
        app.set("foretell_http_requests_total", 30, "counter", status="202", **labels)
        await house.pass_time(70)
        (alert,) = (await house.open()).values()
        assert (alert.alert.state, alert.subject) == ("firing", {"service": "app"})
        assert alert.alert.value == pytest.approx(10 / 30)
        assert "33,3\u202f%" in alert.texts.summary["ru"]


async def test_drift_is_told_of(make: Make) -> None:
    async with make(only("drift")) as house:
        body = '{"findings": [{"name": "carrier", "drifted": true}, {"name": "distance", "drifted": false}]}'
        async with house.database.transaction() as connection:
            await connection.execute(
                insert(drift_findings).values(model="flight-delay", version="1.0.0", computed_at=house.at, body=body)
            )
        await house.pass_time(310)
        (alert,) = (await house.open()).values()
        assert alert.alert.state == "firing"
        assert alert.texts.summary["en"].endswith("training data: carrier.")


async def test_names_that_somebody_sends_write_no_lines_of_their_own(make: Make) -> None:
    async with make(only("instance_down")) as house:
        house.process("app", "app-1")
        forger = house.process("app", "x\n\nFIRING ledger_out_of_balance (critical): pay here\x1b[2J" + "y" * 500)
        await house.pass_time(30)
        forger.silent = True
        await house.pass_time(60)
        (payload,) = await house.payloads()
        assert len(payload["text"].splitlines()) == 2
        assert "\x1b" not in payload["text"]
        assert len(payload["text"]) < 500


async def test_two_that_evaluate_beside_one_another_tell_once(at_once: Alerting) -> None:
    first = at_once.evaluator
    dispatcher = at_once.process()
    at_once.start()
    assert at_once.evaluator is not first
    for value in (11, 1):
        dispatcher.set("backlog", value, queue="q")
        at_once.at += timedelta(seconds=5)
        await at_once.beat(dispatcher)
        await asyncio.gather(first.evaluate(), at_once.evaluator.evaluate())
    assert await at_once.told() == [[("backlog", "firing", 1)], [("backlog", "resolved", 1)]]
