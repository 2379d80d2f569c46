"""Reads metric values from the bodies of `POST /metrics`."""

from math import isfinite

import msgspec

from foretell.services.monitoring.intake.moments import latest_us, moment_us
from foretell.services.monitoring.intake.reading import Reading, WrongField, read_each
from foretell.services.monitoring.intake.text import Names
from foretell.services.monitoring.storage.rows import SampleRow


class Sample(msgspec.Struct, frozen=True):
    """One value of one metric, as `POST /metrics` accepts it."""

    service: str
    metric_name: str
    value: float
    #: ISO 8601; without a zone it is UTC.
    timestamp: str


_decode = msgspec.json.Decoder(Sample).decode
_names = Names()


def read_samples(body: bytes, max_records: int) -> Reading:
    """The values of a JSON body: one, or a list. Raises `InvalidRequest` with all errors, and `MalformedBody`."""
    reading = Reading()
    latest = latest_us()
    append = reading.samples.append
    read_each(body, max_records, lambda record: append(_row_of(_decode(record), latest)))
    return reading


def _row_of(sample: Sample, latest: int) -> SampleRow:
    for field, name in (("service", sample.service), ("metric_name", sample.metric_name)):
        fault = _names.fault(name)
        if fault is not None:
            raise WrongField(field, fault)
    if not isfinite(sample.value):
        raise WrongField("value", "must be a finite number")
    try:
        at_us = moment_us(sample.timestamp, latest)
    except ValueError as error:
        raise WrongField("timestamp", str(error)) from None
    return SampleRow(at_us, sample.service, sample.metric_name, sample.value)
