"""Reads log records from the bodies of `POST /logs`: JSON, or JSON Lines as our services write them."""

import re
from typing import Any

import msgspec

from foretell.kit.problems import MAX_ERRORS, InvalidRequest, pointer
from foretell.services.monitoring.intake.moments import latest_us, moment_us
from foretell.services.monitoring.intake.reading import UNREADABLE, Reading, WrongField, read_each
from foretell.services.monitoring.intake.text import MAX_MESSAGE_BYTES, Names, json_visible, message_of
from foretell.services.monitoring.storage.logs import DEBUG, ERROR, INFO, WARNING
from foretell.services.monitoring.storage.rows import LogRow, utf8_length

#: The largest size of a record's other fields together, as JSON.
MAX_FIELDS_BYTES = 64 * 1024

_RECORD_LEVELS = {"INFO": INFO, "WARNING": WARNING, "ERROR": ERROR}
_LINE_LEVELS = {
    "debug": DEBUG,
    "info": INFO,
    "warning": WARNING,
    "warn": WARNING,
    "error": ERROR,
    "exception": ERROR,
    "critical": ERROR,
    "fatal": ERROR,
}


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One log record, as `POST /logs` accepts it."""

    service: str
    #: INFO, WARNING or ERROR.
    level: str
    message: str
    #: ISO 8601; without a zone it is UTC.
    timestamp: str
    instance: str | None = None
    trace_id: str | None = None
    prediction_id: str | None = None
    request_id: str | None = None
    fields: dict[str, Any] | None = None


_decode_record = msgspec.json.Decoder(Record).decode
_decode_line = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_names = Names()


def read_records(body: bytes, max_records: int) -> Reading:
    """The records of a JSON body: one, or a list. Raises `InvalidRequest` with all errors, and `MalformedBody`."""
    reading = Reading()
    latest = latest_us()
    append = reading.logs.append
    read_each(body, max_records, lambda record: append(_row_of(_decode_record(record), latest)))
    return reading


def _row_of(record: Record, latest: int) -> LogRow:
    _check_name("service", record.service)
    if record.instance:
        _check_name("instance", record.instance)
    level = _RECORD_LEVELS.get(record.level)
    if level is None:
        raise WrongField("level", f"must be one of {', '.join(_RECORD_LEVELS)}")
    fields = record.fields or {}
    for name in ("trace_id", "prediction_id", "request_id"):
        value = getattr(record, name)
        if value is not None:
            _check_id(name, value)
            if name != "trace_id":
                fields = {**fields, name: value}
    return LogRow(
        _moment("timestamp", record.timestamp, latest),
        record.service,
        record.instance or "",
        level,
        message_of(record.message),
        record.trace_id or None,
        fields_text(fields) if fields else "{}",
    )


def read_lines(body: bytes, max_records: int) -> Reading:
    """The records of JSON Lines, as `kit/logs.py` writes them. Lines that can't be read are counted and reported.

    Raises `InvalidRequest` for more lines than `max_records`, and if no line can be read.
    """
    lines = body.splitlines() if b"\n" in body else [body]
    if len(lines) > max_records:
        raise InvalidRequest([{"detail": f"must have at most {max_records} lines", "pointer": pointer()}])
    reading = Reading()
    latest = latest_us()
    append = reading.logs.append
    for number, line in enumerate(lines):
        try:
            append(_row_of_line(_decode_line(line), latest))
        except UNREADABLE:
            if line.strip():
                _refuse(reading, number, "", "is no JSON object")
        except WrongField as error:
            _refuse(reading, number, error.name, error.detail)
    if reading.refused and not reading.logs:
        raise InvalidRequest(reading.errors)
    return reading


def _refuse(reading: Reading, number: int, name: str, detail: str) -> None:
    reading.refused += 1
    if len(reading.errors) < MAX_ERRORS:
        reading.errors.append({"detail": detail, "pointer": pointer(number, *([name] if name else []))})


def _row_of_line(line: dict[str, Any], latest: int) -> LogRow:
    take = line.pop
    moment = take("@timestamp", None)
    at_us = _moment("@timestamp", moment if type(moment) is str else "", latest)
    level = take("log.level", None)
    number = _LINE_LEVELS.get(level.lower()) if type(level) is str else None
    if number is None:
        raise WrongField("log.level", "must be one of debug, info, warning, error, critical")
    service = take("service.name", None)
    _check_name("service.name", service if type(service) is str else "")
    message = take("message", "")
    instance = take("service.node.name", "")
    if instance:
        _check_name("service.node.name", instance if type(instance) is str else "")
    trace_id = take("trace.id", None)
    if trace_id is not None:
        _check_id("trace.id", trace_id if type(trace_id) is str else "")
    take("ecs.version", None)
    request_id = take("http.request.id", None)
    if request_id is not None:
        line["request_id"] = request_id
    return LogRow(
        at_us,
        service,
        instance,
        number,
        message_of(message if type(message) is str else _encode(message).decode()),
        trace_id or None,
        fields_text(line) if line else "{}",
    )


def _moment(name: str, text: str, latest: int) -> int:
    try:
        return moment_us(text, latest)
    except ValueError as error:
        raise WrongField(name, str(error)) from None


def _check_name(field: str, name: str) -> None:
    fault = _names.fault(name)
    if fault is not None:
        raise WrongField(field, fault)


_is_id = re.compile(r"[\x21-\x7e]{1,200}", re.ASCII).fullmatch


def _check_id(field: str, value: str) -> None:
    if _is_id(value) is None:
        raise WrongField(field, "must be 1 to 200 ASCII characters without spaces")


def fields_text(fields: dict[str, Any]) -> str:
    """The other fields of a record as JSON. Long texts are cut; if it is still too large, all fields are dropped."""
    encoded = _encode(fields)
    if len(encoded) > MAX_FIELDS_BYTES:
        encoded = _encode({name: _shortened(value) for name, value in fields.items()})
        if len(encoded) > MAX_FIELDS_BYTES:
            kept = {name: fields[name] for name in ("prediction_id", "request_id") if type(fields.get(name)) is str}
            encoded = _encode(kept | {"cut": f"the fields had {len(encoded)} bytes"})
    return json_visible(encoded.decode())


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and utf8_length(value) > MAX_MESSAGE_BYTES:
        return message_of(value)
    return value
