"""When people are told: at once, later when it flaps, not at all when it is silenced."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from foretell.services.monitoring.alerts.alert import Alert
from foretell.services.monitoring.alerts.notification_text import (
    LONGEST_TEXT,
    MOST_ALERTS,
    Message,
    payload_of,
    text_of,
)
from foretell.services.monitoring.alerts.store import AlertTexts, NotifiedSubject, StoredAlert
from foretell.services.monitoring.alerts.throttle import Change, Throttle, damped_since, due, may_send

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BOUNDS = Throttle(damping_s=300, messages_per_hour=10)


def stored(state: Any = "firing", rule: str = "queue_age", severity: str = "warning", **texts: str) -> StoredAlert:
    over = state == "resolved"
    alert = Alert(
        "a1", rule, '{"queue":"ml_tasks"}', severity, state, 75.0, NOW - timedelta(minutes=13),
        fired_at=NOW - timedelta(minutes=12, seconds=5), resolved_at=NOW if over else None,
        reason="cleared" if over else None,
    )  # fmt: skip
    summary = {"en": "Tasks wait.", "ru": "Задачи ждут.", **texts}
    return StoredAlert(alert, AlertTexts(summary, {"en": "Add workers.", "ru": "Добавьте исполнителей."}))


def told(state: Any, *, fires: bool, since_s: float | None, changes: int) -> NotifiedSubject:
    since = None if since_s is None else NOW - timedelta(seconds=since_s)
    return NotifiedSubject("queue_age", "{}", stored(state), fires, since, changes, NOW)


@pytest.mark.parametrize(
    ("state", "fires", "since_s", "changes", "expected"),
    [
        # The first time, and its end whenever it comes.
        ("firing", False, None, 1, True),
        ("resolved", True, 1, 1, True),
        # Again, soon: only when the interval is over, in one go, whatever it is by then.
        ("firing", False, 299, 1, False),
        ("firing", False, 300, 1, True),
        ("resolved", False, 299, 2, False),
        ("resolved", False, 300, 2, True),
        ("firing", True, 299, 2, False),
        ("firing", True, 300, 2, True),
        ("resolved", True, 299, 3, False),
        ("resolved", True, 300, 3, True),
        # It was held back for another reason and is over: that is to be told too.
        ("resolved", False, None, 2, True),
        ("no_data", False, None, 1, True),
    ],
)
def test_of_one_subject_people_are_told_once_in_a_while(
    state: str, fires: bool, since_s: float | None, changes: int, expected: bool
) -> None:
    each = told(state, fires=fires, since_s=since_s, changes=changes)
    assert due([each], [], NOW, BOUNDS) == ([each] if expected else [])
    assert due([each], {each.key: NOW}, NOW, BOUNDS) == []


def test_the_interval_begins_when_people_are_told_that_it_fires() -> None:
    assert damped_since(told("firing", fires=False, since_s=None, changes=1), NOW) == NOW
    end = told("resolved", fires=True, since_s=100, changes=1)
    assert damped_since(end, NOW) == end.since
    assert damped_since(told("resolved", fires=True, since_s=300, changes=3), NOW) == NOW


def test_the_last_messages_of_an_hour_are_for_what_is_critical() -> None:
    warning, critical = Change(stored(), 1), Change(stored(severity="critical"), 1)
    over = Change(stored("resolved", severity="critical"), 1)
    assert may_send([warning], 7, BOUNDS)
    assert not may_send([warning, over], 8, BOUNDS)
    assert may_send([warning, critical], 9, BOUNDS)
    assert not may_send([critical], 10, BOUNDS)


def test_a_message_says_what_is_wrong_and_what_to_do() -> None:
    text = text_of(Message([Change(stored(), 1)], NOW), "en")
    assert text == "FIRING queue_age (warning): Tasks wait.\nTo do: Add workers."
    text = text_of(Message([Change(stored(), 1)], NOW), "ru")
    assert text == "СРАБОТАЛО queue_age (предупреждение): Задачи ждут.\nЧто делать: Добавьте исполнителей."
    text = text_of(Message([Change(stored("resolved"), 1)], NOW), "en")
    assert text == "RESOLVED queue_age (after 0:12:05): Tasks wait."
    text = text_of(Message([Change(stored("resolved"), 6)], NOW), "en")
    assert text == "RESOLVED queue_age (changed 6 times since it was last told of): Tasks wait."


def test_the_worst_comes_first_and_what_is_over_last() -> None:
    news = [
        Change(stored("resolved", "over", "critical"), 1),
        Change(stored("firing", "warned"), 1),
        Change(stored("firing", "grave", "critical"), 1),
    ]
    message = Message(news, NOW, held_since=NOW - timedelta(minutes=5))
    text = text_of(message, "en")
    assert [text.index(each) for each in ("11:55", "grave", "warned", "over")] == sorted(
        text.index(each) for each in ("11:55", "grave", "warned", "over")
    )
    payload = payload_of(message, "en")
    assert [each["rule"] for each in payload["data"]["alerts"]] == ["grave", "warned", "over"]
    assert [each["state"] for each in payload["data"]["alerts"]] == ["firing", "firing", "resolved"]
    assert payload["text"] == text


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_long_message_is_cut_and_says_so(language: str) -> None:
    # Outside of the basic plane, where Telegram counts a character twice.
    news = [Change(stored(en="\U0001f525" * 200, ru="\U0001f525" * 200), 1)] * (MOST_ALERTS + 20)
    message = Message(news, NOW)
    text = text_of(message, language)
    assert len(text.encode("utf-16-le")) // 2 <= LONGEST_TEXT + 96
    shown = text.count("queue_age")
    assert str(len(news) - shown) in text.splitlines()[-1]
    payload = payload_of(message, language)
    assert (len(payload["data"]["alerts"]), payload["data"]["more"]) == (MOST_ALERTS, 20)
