"""Reads rules: the value to measure, when it is alarming, and the texts of the notifications.

Each rule is a table in a TOML file, under the rule's name (`defaults.toml` has examples of everything).
"""

import re
from collections.abc import Mapping
from math import isfinite
from string import Formatter
from typing import Any

import msgspec

from foretell.contracts.reports.alert_rules import Rule, Texts, Unit
from foretell.kit import structs
from foretell.kit.misfits import misfit_of

LANGUAGES = ("en", "ru")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LONGEST_TEXT = 500
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")

#: Additional names that each signal's texts may use.
FACTS: Mapping[str, tuple[str, ...]] = {
    "service_down": ("last_seen",),
    "instance_down": ("last_seen",),
    "service_unhealthy": ("failing",),
    "drift": ("drifted",),
}
_EVERYWHERE = ("value", "threshold", "window", "rule")


class RuleBroken(Exception):
    """A field of a rule is invalid: `field` is its name, the message is the error."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


def read_rule(name: str, fields: Mapping[str, Any]) -> Rule:
    """Read a rule from a table. Raises `RuleBroken`."""
    if not _NAME.fullmatch(name):
        raise RuleBroken("", "A rule's name has small letters, digits and _, at most 64, and begins with a letter.")
    if "name" in fields:
        raise RuleBroken("name", "The name of a rule is the name of its table.")
    try:
        rule = structs.convert({**fields, "name": name}, Rule)
    except msgspec.ValidationError as error:
        misfit = misfit_of(error)
        raise RuleBroken(misfit.field, f"It {misfit.detail}.") from None
    _check_condition(rule)
    _check_metric(rule)
    _check_services(rule)
    for place in ("summary", "action"):
        _check_texts(rule, place, getattr(rule, place))
    return rule


def _check_condition(rule: Rule) -> None:
    for field in ("above", "below", "resolve_below", "resolve_above", "min_count"):
        value = getattr(rule, field)
        if value is not None and not isfinite(value):
            raise RuleBroken(field, "This must be a finite number.")
    if (rule.above is None) == (rule.below is None):
        raise RuleBroken("above", "A rule needs either above or below, and not both.")
    if rule.above is not None:
        if rule.resolve_above is not None:
            raise RuleBroken("resolve_above", "With above goes resolve_below.")
        if rule.resolve_below is not None and rule.resolve_below > rule.above:
            raise RuleBroken("resolve_below", f"This must not be more than above ({rule.above:g}).")
    if rule.below is not None:
        if rule.resolve_below is not None:
            raise RuleBroken("resolve_below", "With below goes resolve_above.")
        if rule.resolve_above is not None and rule.resolve_above < rule.below:
            raise RuleBroken("resolve_above", f"This must not be less than below ({rule.below:g}).")


def _check_metric(rule: Rule) -> None:
    if rule.signal != "metric":
        if rule.metric or rule.by or rule.labels or rule.part:
            raise RuleBroken("metric", f"metric, labels, part and by go with signal metric, not with {rule.signal}.")
        return
    if not _METRIC_NAME.fullmatch(rule.metric):
        raise RuleBroken("metric", "The name of a metric is needed, as /metrics shows it.")
    for field, names in (("labels", rule.labels), ("part", rule.part), ("by", rule.by)):
        for name in names:
            if not _LABEL_NAME.fullmatch(name):
                raise RuleBroken(field, f"{name!r} is no name of a label.")
    if (rule.kind == "share") != bool(rule.part):
        raise RuleBroken("part", "A share needs part: which series are counted. Nothing else takes it.")


def _check_services(rule: Rule) -> None:
    if rule.signal == "service_absent" and not (rule.services and rule.needed_by):
        raise RuleBroken("services", "service_absent needs services and needed_by.")
    if rule.signal in ("metric", "drift") and rule.services:
        raise RuleBroken("services", f"This does not go with signal {rule.signal}; see labels.")
    if rule.signal != "service_absent" and rule.needed_by:
        raise RuleBroken("needed_by", "This goes with signal service_absent.")


def _check_texts(rule: Rule, place: str, texts: Texts) -> None:
    known = {*_EVERYWHERE, *rule.subject_labels, *FACTS.get(rule.signal, ())}
    for language in LANGUAGES:
        text = texts.of(language)
        field = f"{place}.{language}"
        if len(text) > _LONGEST_TEXT:
            raise RuleBroken(field, f"This is longer than {_LONGEST_TEXT} characters.")
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise RuleBroken(field, f"{error}. Write {{{{ and }}}} for braces that mean themselves.") from None
        for _, name, form, conversion in parts:
            if name is not None and (name not in known or form or conversion):
                raise RuleBroken(field, f"{{{name}}} means nothing here; known are {', '.join(sorted(known))}.")


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with each `{name}` replaced by its value, or by a dash without one."""
    parts: list[str] = []
    for literal, name, _, _ in Formatter().parse(text):
        parts.append(literal)
        if name is not None:
            parts.append(values.get(name) or "–")
    return "".join(parts)


def written(value: float, unit: Unit, language: str = "en") -> str:
    """A number with its unit, for people: `75 s`, `2.5 h`, `12.5%`, `3.1 MiB`, `1,204`.

    Russian has a decimal comma, narrow spaces between groups of digits and before the unit, and Russian units.
    """
    number, name = value, ""
    if unit == "share":
        number, name = value * 100, "%"
    for begins, size, scale in _SCALES.get(unit, ()):
        if abs(value) >= begins:
            number, name = value / size, scale
            break
    digits = f"{number:,.0f}" if number == int(number) or abs(number) >= 1000 else f"{number:.3g}"
    if language == "ru":
        digits = digits.replace(",", _NARROW_SPACE).replace(".", ",")
        return f"{digits}{_NARROW_SPACE}{_RUSSIAN_UNITS.get(name, name)}" if name else digits
    return f"{digits}{'' if name in ('', '%') else ' '}{name}"


#: Smallest value, size and name of each unit.
_SCALES: Mapping[str, tuple[tuple[float, float, str], ...]] = {
    "seconds": (
        (86_400, 86_400, "d"),
        (3600, 3600, "h"),
        (120, 60, "min"),
        (1, 1, "s"),
        (1e-9, 0.001, "ms"),
        (0, 1, "s"),
    ),
    "bytes": ((1024**3, 1024**3, "GiB"), (1024**2, 1024**2, "MiB"), (1024, 1024, "KiB"), (0, 1, "B")),
}
_NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"
_RUSSIAN_UNITS = {
    "d": "дн.", "h": "ч", "min": "мин", "s": "с", "ms": "мс", "GiB": "ГиБ", "MiB": "МиБ", "KiB": "КиБ", "B": "Б",
}  # fmt: skip
