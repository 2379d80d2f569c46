"""The rows read from a body, and its errors."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from foretell.kit.misfits import misfit_of
from foretell.kit.problems import MAX_ERRORS, InvalidRequest, MalformedBody, pointer
from foretell.services.monitoring.storage.rows import LogRow, SampleRow

Problem = dict[str, str]


@dataclass(slots=True)
class Reading:
    """The rows of one body. `errors` are of lines that could not be read; the other lines are still stored."""

    logs: list[LogRow] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
    refused: int = 0
    errors: list[Problem] = field(default_factory=list)


class WrongField(ValueError):
    """A field of a record is invalid."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail


_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_is_list = re.compile(rb"\s*\[").match

#: What msgspec raises for a body that is not JSON or is nested too deeply.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def one_or_many(body: bytes, max_records: int) -> tuple[list[msgspec.Raw] | list[bytes], bool]:
    """The undecoded records in a body, and whether it was a list. Raises `MalformedBody` and `InvalidRequest`.

    Not decoded at once, because the objects of a large body would take many times its size.
    """
    if _is_list(body) is None:
        return [body], False
    try:
        records = _decode_list(body)
    except UNREADABLE:
        raise MalformedBody from None
    if len(records) > max_records:
        raise InvalidRequest([{"detail": f"must have at most {max_records} items", "pointer": pointer()}])
    return records, True


def read_each(body: bytes, max_records: int, read: Callable[[msgspec.Raw | bytes], None]) -> None:
    """Call `read` with every record of a body. Raises `InvalidRequest` with all errors, and `MalformedBody`."""
    records, listed = one_or_many(body, max_records)
    errors: list[Problem] = []
    for index, record in enumerate(records):
        try:
            read(record)
        except WrongField as error:
            errors.append({"detail": error.detail, "pointer": pointer(*([index] if listed else []), error.name)})
        except msgspec.ValidationError as error:
            errors.append(misfit_of(error, *([index] if listed else [])).problem)
        except UNREADABLE:
            raise MalformedBody from None
        if len(errors) >= MAX_ERRORS:
            break
    if errors:
        raise InvalidRequest(errors)
