"""Reads a written answer as a value of a field; errors are explained in the person's language."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from foretell.contracts.fields import Field

_LONGEST_NUMBER = 40
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_TIME = re.compile(r"(\d{1,2})(?:[:.\-h ](\d{2}))?(?::(\d{2}))?\s*(am|pm)?", re.IGNORECASE)
_DIGITS_OF_TIME = re.compile(r"(\d{1,2})(\d{2})")
_YES = frozenset({"yes", "y", "true", "1", "да", "д", "ага"})
_NO = frozenset({"no", "n", "false", "0", "нет", "н"})
_LATEST_HOUR, _LATEST_MINUTE, _NOON = 23, 59, 12


class DoesNotFit(Exception):
    """The value is invalid for this field. `key` and `values` are for `Words`; numbers in them must be formatted."""

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(key)
        self.key = key
        self.values = values
        #: The lists and the parts of objects that lead to what is wrong, the outermost first; empty if it is the whole
        #: value.
        self.within: list[Field] = []


def read(field: Field, text: str, language: str) -> Any:
    """The value of the field in `text`. Raises `DoesNotFit`."""
    value = _READERS[field.kind](field, text.strip(), language)
    check(field, value)
    return value


def check(field: Field, value: Any) -> None:
    """Raises `DoesNotFit` for an invalid value. Patterns are left to the app, whose error is more precise."""
    if value is None:
        if not field.nullable:
            raise DoesNotFit("wrong.empty")
        return
    _CHECKS.get(field.kind, _any)(field, value)


def _any(field: Field, value: Any) -> None:
    """Accept any value; the app checks it."""


def _choice(field: Field, text: str, language: str) -> Any:
    wanted = text.casefold()
    choices = field.choices or []
    names = [(each, {str(each.value), each.label.en, each.label.ru}) for each in choices]
    exact = [each for each, words in names if wanted in {word.casefold() for word in words}]
    begins = [each for each, words in names if any(word.casefold().startswith(wanted) for word in words)]
    if len(exact) == 1:
        return exact[0].value
    if wanted and len(begins) == 1:
        return begins[0].value
    raise DoesNotFit("wrong.choice")


def _check_choice(field: Field, value: Any) -> None:
    if not any(each.value == value and type(each.value) is type(value) for each in field.choices or []):
        raise DoesNotFit("wrong.choice")


def _number_in(text: str, language: str) -> float:
    compact = re.sub(r"[\s\u00a0\u202f'’_]", "", text).replace("−", "-")
    if len(compact) > _LONGEST_NUMBER:
        raise DoesNotFit("wrong.number")
    if language == "en" and _GROUPED.fullmatch(compact):
        compact = compact.replace(",", "")
    elif compact.count(",") == 1 and "." not in compact:
        compact = compact.replace(",", ".")
    if not _NUMBER.fullmatch(compact):
        raise DoesNotFit("wrong.number")
    return float(compact)


def _number(field: Field, text: str, language: str) -> float:
    return _number_in(text, language)


def _integer(field: Field, text: str, language: str) -> int:
    value = _number_in(text, language)
    if not value.is_integer():
        raise DoesNotFit("wrong.integer")
    return int(value)


def _check_number(field: Field, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DoesNotFit("wrong.number")
    if field.kind == "integer" and value != int(value):
        raise DoesNotFit("wrong.integer")
    if field.minimum is not None and value < field.minimum:
        raise DoesNotFit("wrong.minimum", bound=field.minimum)
    if field.exclusive_minimum is not None and value <= field.exclusive_minimum:
        raise DoesNotFit("wrong.exclusive_minimum", bound=field.exclusive_minimum)
    if field.maximum is not None and value > field.maximum:
        raise DoesNotFit("wrong.maximum", bound=field.maximum)
    if field.exclusive_maximum is not None and value >= field.exclusive_maximum:
        raise DoesNotFit("wrong.exclusive_maximum", bound=field.exclusive_maximum)
    if field.multiple_of:
        parts = value / field.multiple_of
        if abs(parts - round(parts)) > 1e-9 * max(1.0, abs(parts)):
            raise DoesNotFit("wrong.multiple_of", bound=field.multiple_of)


def _text(field: Field, text: str, language: str) -> str:
    return text


def _check_text(field: Field, value: Any) -> None:
    if not isinstance(value, str):
        raise DoesNotFit("wrong.text")
    if field.min_length is not None and len(value) < field.min_length:
        raise DoesNotFit("wrong.min_length", bound=field.min_length, length=len(value))
    if field.max_length is not None and len(value) > field.max_length:
        raise DoesNotFit("wrong.max_length", bound=field.max_length, length=len(value))


def _time(field: Field, text: str, language: str) -> str:
    found = _DIGITS_OF_TIME.fullmatch(text) or _TIME.fullmatch(text)
    if found is None:
        raise DoesNotFit("wrong.time")
    parts = [*found.groups(), None, None]
    minute, second, half = parts[1:4]
    hours, minutes = int(parts[0] or 0), int(minute or 0)
    if half and hours <= _NOON:
        hours = hours % _NOON + (_NOON if half.lower() == "pm" else 0)
    if hours > _LATEST_HOUR or minutes > _LATEST_MINUTE or int(second or 0) > _LATEST_MINUTE:
        raise DoesNotFit("wrong.time")
    return f"{hours:02}:{minutes:02}" + (f":{second}" if second else "")


def _date_in(text: str) -> date:
    for pattern in ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y"):
        try:
            # A date has no time zone.
            return datetime.strptime(text, pattern).date()  # noqa: DTZ007
        except ValueError:
            continue
    raise DoesNotFit("wrong.date")


def _date(field: Field, text: str, language: str) -> str:
    return _date_in(text).isoformat()


def _datetime(field: Field, text: str, language: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        day, _, clock = text.partition(" ")
        try:
            moment = datetime.fromisoformat(f"{_date_in(day).isoformat()}T{_time(field, clock.strip(), language)}")
        except DoesNotFit:
            raise DoesNotFit("wrong.datetime") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.isoformat()


def _boolean(field: Field, text: str, language: str) -> bool:
    word = text.casefold()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise DoesNotFit("wrong.boolean")


def _check_boolean(field: Field, value: Any) -> None:
    if not isinstance(value, bool):
        raise DoesNotFit("wrong.boolean")


def _list(field: Field, text: str, language: str) -> list[Any]:
    if text.startswith("["):
        value = _json(field, text, language)
        if not isinstance(value, list):
            raise DoesNotFit("wrong.json")
        return value
    separator = "\n" if "\n" in text else (";" if ";" in text else ",")
    parts = [part.strip() for part in text.split(separator) if part.strip()]
    assert field.items is not None
    with _within(field):
        return [read(field.items, part, language) for part in parts]


def _check_list(field: Field, value: Any) -> None:
    if not isinstance(value, list):
        raise DoesNotFit("wrong.list")
    if field.min_items is not None and len(value) < field.min_items:
        raise DoesNotFit("wrong.min_items", bound=field.min_items)
    if field.max_items is not None and len(value) > field.max_items:
        raise DoesNotFit("wrong.max_items", bound=field.max_items)
    if field.items is not None:
        with _within(field):
            for each in value:
                check(field.items, each)


def _check_object(field: Field, value: Any) -> None:
    if not isinstance(value, dict):
        raise DoesNotFit("wrong.object")
    for part in field.fields or []:
        with _within(part):
            if part.name in value:
                check(part, value[part.name])
            elif part.required:
                raise DoesNotFit("wrong.missing")


@contextmanager
def _within(part: Field) -> Iterator[None]:
    """Name this list, or part of an object, as where something is wrong."""
    try:
        yield
    except DoesNotFit as wrong:
        wrong.within.insert(0, part)
        raise


def _json(field: Field, text: str, language: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise DoesNotFit("wrong.json") from None


_READERS: dict[str, Callable[[Field, str, str], Any]] = {
    "choice": _choice,
    "number": _number,
    "integer": _integer,
    "text": _text,
    "time": _time,
    "date": _date,
    "datetime": _datetime,
    "boolean": _boolean,
    "list": _list,
    "object": _json,
    "json": _json,
}
_CHECKS: dict[str, Callable[[Field, Any], None]] = {
    "choice": _check_choice,
    "number": _check_number,
    "integer": _check_number,
    "text": _check_text,
    "time": _check_text,
    "date": _check_text,
    "datetime": _check_text,
    "boolean": _check_boolean,
    "list": _check_list,
    "object": _check_object,
}
