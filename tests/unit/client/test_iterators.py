"""Pages as iterators, and events as they happen."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.unit.client.scripted import Broken, InOneWay, Script, problem

from foretell.client import ApiError, Unreachable

_STREAM = {"content-type": "text/event-stream"}


def page(*items: Any, cursor: str | None, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"items": items, "next_cursor": cursor, **more})


def event(sequence: int, text: str = "") -> bytes:
    data = json.dumps({"sequence": sequence, "data": text}, ensure_ascii=False).encode()
    return b"event: prediction.finished\nid: %d\ndata: %b\n\n" % (sequence, data)


@pytest.mark.parametrize(
    ("method", "arguments", "path"),
    [
        ("iter_predictions", (), "/predictions"),
        ("iter_transactions", (), "/transactions"),
        ("iter_deliveries", ("w1",), "/webhooks/w1/deliveries"),
    ],
)
async def test_pages_are_asked_for_one_after_the_other(
    call: InOneWay, method: str, arguments: tuple[str, ...], path: str
) -> None:
    script = Script(page(1, 2, cursor="a"), page(cursor="b"), page(3, cursor=None))
    assert await call.first(10, script, method, *arguments) == [1, 2, 3]
    assert [each.url.path for each in script.requests] == [path] * 3
    assert [each.url.params.get("cursor") for each in script.requests] == [None, "a", "b"]


async def test_a_page_that_nobody_needs_is_not_asked_for(call: InOneWay) -> None:
    script = Script(page(1, 2, cursor="a"))
    assert await call.first(2, script, "iter_transactions") == [1, 2]


async def test_a_filter_holds_for_every_page(call: InOneWay) -> None:
    script = Script(page(1, cursor="a"), page(2, cursor=None))
    since = datetime(2026, 1, 31, tzinfo=UTC)
    assert await call.first(9, script, "iter_predictions", model="m", status="failed", since=since) == [1, 2]
    for request in script.requests:
        wanted = {"model": "m", "status": "failed", "since": "2026-01-31T00:00:00+00:00", "limit": "200"}
        assert {name: value for name, value in request.url.params.items() if name != "cursor"} == wanted


async def test_events_until_now(call: InOneWay) -> None:
    script = Script(page(6, 7, cursor="7", more=True), page(8, cursor="8", more=False))
    assert await call.first(9, script, "iter_events", 5) == [6, 7, 8]
    assert [each.url.params["after"] for each in script.requests] == ["5", "7"]


async def test_a_stream_that_breaks_goes_on_behind_the_last_whole_event(call: InOneWay) -> None:
    script = Script(
        # Where the stream begins, then one event, and half of another.
        httpx.Response(200, headers=_STREAM, content=b"retry: 3000\nid: 4\n\n"),
        httpx.Response(200, headers=_STREAM, stream=Broken(b": nothing new\n\n", event(5), event(6)[:40])),
        httpx.ConnectError("refused"),
        httpx.Response(200, headers=_STREAM, stream=Broken(event(6)[:20], event(6)[20:] + event(7))),
    )
    assert [each["sequence"] for each in await call.first(3, script, "follow_events")] == [5, 6, 7]
    assert [each.headers.get("last-event-id") for each in script.requests] == [None, "4", "5", "5"]
    assert {each.headers["accept"] for each in script.requests} == {"text/event-stream"}
    # As the stream asked for; then as for any other call.
    assert script.pauses_s[0] >= 3
    assert script.pauses_s[1] >= 3


async def test_a_stream_begins_where_it_is_told_to(call: InOneWay) -> None:
    script = Script(httpx.Response(200, headers=_STREAM, content=event(18)))
    assert (await call.first(1, script, "follow_events", after=17))[0]["sequence"] == 18
    assert script.requests[0].headers["last-event-id"] == "17"


async def test_separators_of_lines_within_a_text_separate_nothing(call: InOneWay) -> None:
    text = "a\u2028b\u0085c\x0bd\x1ce"
    script = Script(httpx.Response(200, headers=_STREAM, content=event(1, text).replace(b"\n", b"\r\n")))
    assert (await call.first(1, script, "follow_events"))[0]["data"] == text


async def test_a_stream_ends_with_what_is_wrong(call: InOneWay) -> None:
    with pytest.raises(ApiError, match="Log in"):
        await call.first(1, Script(problem(401, "invalid_token", "Log in.")), "follow_events")
    with pytest.raises(Unreachable, match="something else"):
        await call.first(1, Script(httpx.Response(200, text="<html>")), "follow_events")
    with pytest.raises(Unreachable, match="something else"):
        await call.first(1, Script(httpx.Response(200, headers=_STREAM, content=b"data: {\n\n")), "follow_events")
