"""What a rule reads off: one number for each subject."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

#: A subject as it is kept: a JSON object of texts with sorted names.
SubjectKey = str

_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Reading:
    """The number of one subject; None: it can't be told now, and what is open stays as it is."""

    subject: dict[str, str]
    value: float | None
    #: More that the texts may name.
    facts: Mapping[str, str] = field(default_factory=dict)


def subject_key(subject: Mapping[str, str]) -> SubjectKey:
    """How `subject` is kept and compared."""
    return _encode(dict(subject)).decode()


def by_subject(readings: Iterable[Reading]) -> dict[SubjectKey, Reading]:
    """The readings by subject."""
    return {subject_key(reading.subject): reading for reading in readings}
