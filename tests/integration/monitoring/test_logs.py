"""Log records come in, one, many or as lines, and are found again; on PostgreSQL and on SQLite."""

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.monitoring.watched import Watching, watching

from foretell.kit.clock import now, uuid7, uuid7_at
from foretell.services.monitoring.storage import logs
from foretell.services.monitoring.storage.logs import LogQuery

MIB = 1024 * 1024


@pytest.fixture
async def service(monitoring_database_url: str, tmp_path: Path) -> AsyncIterator[Watching]:
    async with watching(monitoring_database_url, tmp_path) as service:
        yield service


def record(message: str = "it happened", **changes: Any) -> dict[str, Any]:
    """A record as anybody sends it."""
    return {"service": "shop", "level": "INFO", "message": message, "timestamp": now().isoformat()} | changes


async def post(service: Watching, body: Any) -> Any:
    answer = await service.client.post("/logs", json=body)
    return answer.status_code, answer.json()


async def post_bytes(service: Watching, body: bytes, content_type: str = "application/json") -> Any:
    answer = await service.client.post("/logs", content=body, headers={"Content-Type": content_type})
    return answer.status_code, answer.json()


async def messages(service: Watching, /, **parameters: Any) -> list[str]:
    return [each["message"] for each in await service.get("/reports/logs", **parameters)]


async def every_page(service: Watching, /, **parameters: Any) -> list[dict[str, Any]]:
    """All records that a search leads to, the oldest first."""
    answer = await service.client.get("/reports/logs", params=parameters)
    found: list[dict[str, Any]] = answer.json()
    while "next" in answer.links:
        url = answer.links["next"]["url"]
        answer = await service.client.get(url)
        assert answer.status_code == 200, answer.text
        found = found + answer.json() if "after=" in url else answer.json() + found
    return found


async def test_one_record_and_a_list_are_stored_and_come_back_newest_last(service: Watching) -> None:
    at = now() - timedelta(minutes=1)
    stamps = [(at + timedelta(seconds=each)).isoformat() for each in range(4)]
    assert await post(service, record("first", timestamp=stamps[0], level="ERROR")) == (200, {"status": "logged"})
    several = [
        record("fourth", timestamp=stamps[3]),
        record("second", timestamp=stamps[1]),
        record("third", timestamp=stamps[2]),
    ]
    assert await post(service, several) == (200, {"status": "logged"})
    assert await post(service, []) == (200, {"status": "logged"})
    found = await service.get("/reports/logs", service="shop", limit=100)
    assert [each["message"] for each in found] == ["first", "second", "third", "fourth"]
    assert {"service": "shop", "level": "ERROR", "message": "first"}.items() <= found[0].items()
    assert found[0]["timestamp"] == (at).isoformat().replace("+00:00", "Z")
    assert await messages(service, service="shop", limit=2) == ["third", "fourth"]
    assert await messages(service, service="") == ["first", "second", "third", "fourth"]
    assert await messages(service, service="nobody") == []


async def test_records_of_one_moment_keep_the_order_in_which_they_came(service: Watching) -> None:
    stamp = now().isoformat()
    await post(service, [record(str(each), timestamp=stamp) for each in range(50)])
    assert await messages(service) == [str(each) for each in range(50)]


async def test_what_else_a_record_says_comes_back(service: Watching) -> None:
    more = {
        "instance": "shop-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "prediction_id": str(uuid7()),
        "request_id": "r-1",
        "fields": {"route": "/basket", "deep": {"list": [1, 2.5, None, "ü"]}},
    }
    await post(service, record(**more))
    [found] = await service.get("/reports/logs")
    assert more.items() <= found.items()


async def test_null_stands_for_what_a_record_leaves_out(service: Watching) -> None:
    left_out = dict.fromkeys(("instance", "trace_id", "prediction_id", "request_id", "fields"))
    assert await post(service, record("with nulls", **left_out)) == (200, {"status": "logged"})
    assert await messages(service) == ["with nulls"]


async def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_turned(service: Watching) -> None:
    for stamp in ("2025-01-05T10:30:00", "2025-01-05 13:30:00+03:00", "20250105T103000Z"):
        assert (await post(service, record(timestamp=stamp)))[0] == 200
    assert {each["timestamp"] for each in await service.get("/reports/logs")} == {"2025-01-05T10:30:00Z"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"level": "info"}, "#/level"),
        ({"level": "DEBUG"}, "#/level"),
        ({"level": "FATAL"}, "#/level"),
        ({"level": 20}, "#/level"),
        ({"timestamp": "yesterday"}, "#/timestamp"),
        ({"timestamp": ""}, "#/timestamp"),
        ({"timestamp": "2025-13-01T00:00:00Z"}, "#/timestamp"),
        ({"timestamp": "2025-01-01\x0000:00:00"}, "#/timestamp"),
        ({"timestamp": "1960-01-01T00:00:00Z"}, "#/timestamp"),
        ({"timestamp": "9999-12-31T23:59:59-23:59"}, "#/timestamp"),
        ({"timestamp": 1736073000}, "#/timestamp"),
        # Reckoned when the tests are collected, which may be an hour before this one runs.
        ({"timestamp": (now() + timedelta(hours=6)).isoformat()}, "#/timestamp"),
        ({"service": ""}, "#/service"),
        ({"service": "a\nb"}, "#/service"),
        ({"service": "a\x00"}, "#/service"),
        ({"service": "x" * 300}, "#/service"),
        ({"instance": "a\x1b[31m"}, "#/instance"),
        ({"trace_id": "a b"}, "#/trace_id"),
        ({"prediction_id": ""}, "#/prediction_id"),
        ({"request_id": "ü"}, "#/request_id"),
        ({"message": None}, "#/message"),
        ({"message": 7}, "#/message"),
        ({"fields": [1]}, "#/fields"),
    ],
)
async def test_what_does_not_fit_is_refused_by_its_field_and_nothing_is_stored(
    service: Watching, change: dict[str, Any], pointer: str
) -> None:
    status, problem = await post(service, record(**change))
    assert (status, [error["pointer"] for error in problem["errors"]]) == (422, [pointer])
    body = [record(), record(), record(), record(**change)]
    status, problem = await post(service, body)
    assert (status, [error["pointer"] for error in problem["errors"]]) == (422, [pointer.replace("#", "#/3")])
    assert await messages(service) == []


async def test_every_wrong_record_of_a_list_is_named(service: Watching) -> None:
    body = [record(), record(level="x"), {"service": "shop"}, 3]
    status, problem = await post(service, body)
    assert status == 422
    assert [error["pointer"] for error in problem["errors"]] == ["#/1/level", "#/2/level", "#/3"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"service": NaN}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'["\\ud800"]',
        b'[{"service":"\xff\xfe"}]',
        b'{"service":"a\x00b"}',
        b'"text"',
        b"null",
        b"[null]",
    ],
)
async def test_what_is_no_json_is_refused(service: Watching, body: bytes) -> None:
    status, problem = await post_bytes(service, body)
    assert (status, problem["code"]) in ((422, "malformed_body"), (422, "invalid_request"))


async def test_deep_fields_are_refused(service: Watching) -> None:
    deep = json.dumps(record()).replace("}", ', "fields": {"a":' + "[" * 100_000 + "]" * 100_000 + "}}")
    status, problem = await post_bytes(service, deep.encode())
    assert (status, problem["code"]) == (422, "malformed_body")


async def test_ten_megabytes_of_message_are_cut_with_a_mark(service: Watching) -> None:
    size = 10 * MIB
    assert (await post(service, record("x" * size)))[0] == 200
    [found] = await messages(service)
    assert found.startswith("x" * 16_000)
    assert found.endswith(f"[cut: the message had {size} bytes]")
    assert len(found) < 17_000


async def test_a_body_that_is_too_large_is_refused(service: Watching) -> None:
    status, problem = await post_bytes(service, b" " * (33 * MIB))
    assert (status, problem["code"]) == (413, "body_too_large")

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * MIB

    answer = await service.client.post("/logs", content=unannounced())
    assert answer.status_code in (413, 503)


async def test_a_compressed_body_is_unpacked(service: Watching) -> None:
    content = gzip.compress(json.dumps([record("packed"), record("too")]).encode())
    answer = await service.client.post("/logs", content=content, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert await messages(service) == ["packed", "too"]
    answer = await service.client.post("/logs", content=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


async def test_more_records_than_a_list_may_have_are_refused(service: Watching) -> None:
    status, problem = await post_bytes(service, b"[" + b",".join([b"0"] * 50_001) + b"]")
    assert (status, problem["errors"][0]["pointer"]) == (422, "#")


async def test_a_message_can_forge_no_other_record(service: Watching) -> None:
    forged = 'all well\n{"level":"ERROR"}\r\x1b[2J\x00\x85\u2028\u202e'
    await post(service, record(forged, fields={"note": "a\u0085b\u202ec\x7f", "stack": "1\n\t2"}))
    [found] = await service.get("/reports/logs")
    assert found["message"] == 'all well\\n{"level":"ERROR"}\\r\\x1b[2J\\x00\\x85\\u2028\\u202e'
    assert found["fields"] == {"note": "a\\x85b\\u202ec\\x7f", "stack": "1\n\t2"}
    export = (await service.client.get("/reports/logs.jsonl")).text
    assert len(export.splitlines()) == len(export.strip().split("\n")) == 1


def line(message: str = "prediction_settled", **changes: Any) -> dict[str, Any]:
    """A line as `kit/logs.py` writes it."""
    return {
        "@timestamp": now().isoformat(),
        "log.level": "info",
        "message": message,
        "service.name": "ml_worker",
        "service.node.name": "worker-1",
        "ecs.version": "8.17.0",
    } | changes


def as_lines(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


async def test_lines_of_services_are_stored_as_records(service: Watching) -> None:
    prediction_id = str(uuid7())
    lines = [
        line("one", **{"log.level": "debug"}),
        line("two", **{"log.level": "critical", "trace.id": "abc", "http.request.id": "r-1"}),
        line("three", prediction_id=prediction_id, model="flight-delay"),
    ]
    answer = await post_bytes(service, as_lines(*lines), "application/x-ndjson; charset=utf-8")
    assert answer == (200, {"status": "logged", "stored": 3, "refused": 0})
    one, two, three = await service.get("/reports/logs", service="ml_worker", instance="worker-1")
    assert (one["level"], two["level"], two["trace_id"], two["request_id"]) == ("DEBUG", "ERROR", "abc", "r-1")
    assert (three["prediction_id"], three["fields"]) == (prediction_id, {"model": "flight-delay"})


async def test_lines_that_can_not_be_read_are_told_and_the_others_stored(service: Watching) -> None:
    body = as_lines(line("good")) + b"nonsense\n\n" + as_lines(line(**{"log.level": "loud"}), line("too")) + b'{"a":'
    status, told = await post_bytes(service, body, "application/x-ndjson")
    assert (status, told["stored"], told["refused"]) == (200, 2, 3)
    assert [error["pointer"] for error in told["errors"]] == ["#/1", "#/3/log.level", "#/5"]
    assert await messages(service) == ["good", "too"]


async def test_lines_none_of_which_can_be_read_are_refused(service: Watching) -> None:
    status, problem = await post_bytes(service, b"what\nis this\n", "application/x-ndjson")
    assert (status, len(problem["errors"])) == (422, 2)


async def test_filters_find_what_they_say(service: Watching) -> None:
    at = now() - timedelta(hours=1)

    def moment(minutes: int) -> str:
        return (at + timedelta(minutes=minutes)).isoformat()

    kinds = ("INFO", "WARNING", "ERROR")
    body = [
        record(
            str(each), service=f"s{each % 2}", level=kinds[each % 3], instance=f"i{each % 4}", timestamp=moment(each)
        )
        for each in range(24)
    ]
    await post(service, body)
    everything = range(24)
    wanted: list[tuple[dict[str, Any], list[int]]] = [
        ({"service": "s1"}, [each for each in everything if each % 2]),
        ({"level": "INFO"}, [each for each in everything if each % 3 == 0]),
        ({"level": "WARNING"}, [each for each in everything if each % 3 == 1]),
        ({"level": "ERROR", "service": "s0"}, [each for each in everything if each % 6 == 2]),
        ({"min_level": "WARNING"}, [each for each in everything if each % 3]),
        ({"min_level": "ERROR"}, [each for each in everything if each % 3 == 2]),
        ({"min_level": "INFO"}, list(everything)),
        ({"min_level": "DEBUG", "level": "ERROR", "instance": "i3"}, [each for each in everything if each % 12 == 11]),
        ({"instance": "i2", "service": "s0"}, [each for each in everything if each % 4 == 2]),
        ({"since": moment(20)}, [20, 21, 22, 23]),
        ({"until": moment(3)}, [0, 1, 2, 3]),
        ({"since": moment(5), "until": moment(8), "service": "s0"}, [6, 8]),
        ({"text": "3"}, [3, 13, 23]),
        ({"text": "2", "level": "ERROR"}, [2, 20, 23]),
    ]
    for parameters, expected in wanted:
        assert await messages(service, **parameters) == [str(each) for each in expected], parameters
        assert [each["message"] for each in await every_page(service, **parameters, limit=1)] == [
            str(each) for each in expected
        ], parameters


async def test_text_is_found_in_upper_and_lower_case_of_every_script_and_means_nothing_else(service: Watching) -> None:
    texts = ["Straße 100%", "ПРИВЕТ, мир", "a_b*c?d", "[x] \\d+ (y)", "plain", "^start$"]
    await post(service, [record(text) for text in texts])
    for part, expected in {
        "STRASSE": [],
        "straße": [texts[0]],
        "100%": [texts[0]],
        "1%0": [],
        "Привет": [texts[1]],
        "МИР": [texts[1]],
        "A_B": [texts[2]],
        "aXb": [],
        "*": [texts[2]],
        "?d": [texts[2]],
        "[X]": [texts[3]],
        "\\d+": [texts[3]],
        "(Y)": [texts[3]],
        "лain": [],
        "PLAIN": [texts[4]],
        "^START$": [texts[5]],
        "мир*": [],
        "т, [": [],
    }.items():
        assert await messages(service, text=part) == expected, part


async def test_a_text_is_found_in_the_fields_too(service: Watching) -> None:
    fields = {"model": "churn", "where": 'line 3, in "Прогноз"', "error_type": "KeyError"}
    await post(service, [record("model_failed", fields=fields), record("other", fields={"model": "sentiment"})])
    for part in ("keyerror", "churn", 'in "прогноз"'):
        assert await messages(service, text=part) == ["model_failed"], part
    assert await messages(service, text="sentiment") == ["other"]


async def test_records_of_a_prediction_are_found_from_the_time_in_its_id_on(service: Watching) -> None:
    made_at = now() - timedelta(minutes=10)
    prediction_id = str(uuid7_at(made_at))
    body = [
        record("before", timestamp=(made_at - timedelta(minutes=5)).isoformat()),
        record("taken", prediction_id=prediction_id, timestamp=made_at.isoformat()),
        record(f"settled {prediction_id}", timestamp=(made_at + timedelta(seconds=1)).isoformat()),
        record("batch", fields={"ids": ["x", prediction_id]}, timestamp=(made_at + timedelta(seconds=2)).isoformat()),
        record("another", prediction_id=str(uuid7())),
    ]
    await post(service, body)
    expected = ["taken", f"settled {prediction_id}", "batch"]
    assert await messages(service, prediction_id=prediction_id) == expected
    assert await messages(service, prediction_id=prediction_id.upper()) == expected
    assert [each["message"] for each in await every_page(service, prediction_id=prediction_id, limit=1)] == expected
    assert await messages(service, prediction_id="a-name-of-its-own") == []


async def test_records_of_a_trace_are_found(service: Watching) -> None:
    await post(service, [record(str(each), trace_id=f"t{each % 3}", level="ERROR") for each in range(9)])
    assert await messages(service, trace_id="t1") == ["1", "4", "7"]
    assert await messages(service, trace_id="t1", text="4", min_level="WARNING") == ["4"]
    assert await messages(service, trace_id="t") == []


async def test_a_search_that_runs_out_of_time_says_how_far_it_came(service: Watching) -> None:
    at = now() - timedelta(hours=1)
    rows = [
        record("x" if each % 1000 else "needle", timestamp=(at + timedelta(milliseconds=each)).isoformat())
        for each in range(9_000)
    ]
    await post(service, rows)
    for oldest in (False, True):
        query = LogQuery(text="needle", deadline_s=0, oldest=oldest)
        found, calls = [], 0
        while True:
            async with service.database.snapshot() as connection:
                page = await logs.find(connection, query)
            found += page.records
            calls += 1
            if page.more is None:
                break
            query = replace(query, after=page.more) if oldest else replace(query, before=page.more)
        assert calls == 3
        assert len({each.cursor for each in found}) == len(found) == 9


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"level": "info"}, "level"),
        ({"min_level": "LOUD"}, "min_level"),
        ({"since": "yesterday"}, "since"),
        ({"until": "0001-01-01T00:00:00+14:00"}, "until"),
        ({"before": "x"}, "before"),
        ({"after": "1-2-3"}, "after"),
        ({"text": "a\0b"}, "text"),
        ({"service": "\0"}, "service"),
        ({"predction_id": "typo"}, "predction_id"),
    ],
)
async def test_what_can_not_be_asked_is_refused_by_its_parameter(
    service: Watching, parameters: dict[str, str], wrong: str
) -> None:
    for path in ("/reports/logs", "/reports/logs.jsonl"):
        answer = await service.client.get(path, params=parameters)
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, wrong)


async def test_the_export_has_every_record_that_fits_oldest_first(service: Watching) -> None:
    at = now() - timedelta(hours=1)
    rows = [
        record(str(each), level="ERROR" if each % 2 else "INFO", timestamp=(at + timedelta(seconds=each)).isoformat())
        for each in range(2_500)
    ]
    await post(service, rows)

    async def exported(path: str = "/reports/logs.jsonl", **parameters: Any) -> list[str]:
        answer = await service.client.get(path, params=parameters, headers={"Accept": "application/x-ndjson"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(each)["message"] for each in answer.text.splitlines()]

    assert await exported() == [str(each) for each in range(2_500)]
    assert await exported(level="ERROR") == [str(each) for each in range(1, 2_500, 2)]
    assert await exported("/reports/logs", limit="1200") == [str(each) for each in range(1_200)]
    assert await exported(text="nowhere") == []
    head = await service.client.head("/reports/logs.jsonl")
    assert (head.status_code, head.content) == (200, b"")


async def test_records_are_counted_by_minute_service_and_level(service: Watching) -> None:
    at = (now() - timedelta(hours=1)).replace(second=0, microsecond=0)
    for minute, level in ((0, "INFO"), (0, "ERROR"), (1, "ERROR"), (3, "INFO")):
        await post(service, [record(level=level, timestamp=(at + timedelta(minutes=minute)).isoformat())] * 2)
    await post(service, record(service="other", timestamp=at.isoformat()))
    async with service.database.snapshot() as connection:
        assert await logs.counts(connection, at, at + timedelta(minutes=3)) == {
            "other": {20: 1},
            "shop": {20: 2, 40: 4},
        }
        assert await logs.counts(connection, at, at + timedelta(hours=1), "shop") == {"shop": {20: 4, 40: 4}}
