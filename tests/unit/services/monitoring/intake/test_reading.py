"""Bodies that nobody foresaw: what can't be read is refused, and nothing else happens."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.clock import now
from foretell.kit.problems import InvalidRequest, MalformedBody
from foretell.services.monitoring.intake.logs import MAX_FIELDS_BYTES, read_lines, read_records
from foretell.services.monitoring.intake.moments import latest_us, moment_us
from foretell.services.monitoring.intake.samples import read_samples

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_fields = [
    *("service", "level", "message", "timestamp", "instance", "trace_id", "prediction_id", "request_id", "fields"),
    *("@timestamp", "log.level", "service.name", "service.node.name", "trace.id", "http.request.id"),
    *("value", "metric_name"),
]
_records = st.dictionaries(st.sampled_from(_fields), _json | st.sampled_from(["INFO", "info", now().isoformat()]))


@given(st.lists(_records, max_size=3) | _records | _json)
def test_any_json_is_read_or_refused(value: Any) -> None:
    body = json.dumps(value).encode()
    for read in (read_records, read_lines, read_samples):
        # Whatever else it raises fails the test.
        with suppress(InvalidRequest, MalformedBody):
            for row in read(body, 100).logs:
                assert "\0" not in "".join(each for each in row if isinstance(each, str))
                assert isinstance(msgspec.json.decode(row.fields), dict)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for read in (read_records, read_lines, read_samples):
        with suppress(InvalidRequest, MalformedBody):
            read(body, 100)


@given(st.text(max_size=40) | st.datetimes(timezones=st.none() | st.timezones()).map(str))
def test_any_text_is_a_time_or_none(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= moment_us(text, latest_us()) <= latest_us()


@pytest.mark.parametrize("text", ["2025-01-05T09:30:00Z", "2025-01-05t09:30:00z", "2025-01-05T09:30", "2025-W01-7"])
def test_iso_8601_is_understood(text: str) -> None:
    assert moment_us(text, latest_us()) > 0


def test_fields_beyond_their_bounds_are_cut_and_the_prediction_stays_known() -> None:
    record = {"service": "s", "level": "INFO", "message": "m", "timestamp": now().isoformat(), "prediction_id": "p-1"}
    stack = record | {"fields": {"stack": "x" * 1_000_000, "n": 1}}
    [row] = read_records(json.dumps(stack).encode(), 1).logs
    fields = json.loads(row.fields)
    assert (fields["n"], fields["prediction_id"]) == (1, "p-1")
    assert "[cut: the message had 1000000 bytes]" in fields["stack"]
    many = record | {"fields": {str(each): "x" * 100 for each in range(10_000)}}
    [row] = read_records(json.dumps(many).encode(), 1).logs
    assert len(row.fields) < MAX_FIELDS_BYTES
    assert json.loads(row.fields)["prediction_id"] == "p-1"
