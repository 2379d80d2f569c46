"""Rules: the value to measure, when it is alarming, and the texts of the notifications.

Each rule is a table in a TOML file, under the rule's name (`defaults.toml` has examples of everything).
"""

import re
from collections.abc import Mapping
from math import isfinite
from string import Formatter
from typing import Annotated, Any, Literal

import msgspec

from foretell.kit.misfits import misfit_of

Kind = Literal["gauge", "growth", "age", "rate", "increase", "share", "quantile"]
Signal = Literal["metric", "service_down", "instance_down", "service_unhealthy", "service_absent", "drift"]
Severity = Literal["info", "warning", "critical"]
Aggregate = Literal["max", "min", "sum", "avg"]
Unit = Literal["count", "seconds", "share", "bytes"]
#: One or several patterns of a label's value, with `*` and `?`; `!` in front excludes values.
Pattern = str | list[str]

LANGUAGES = ("en", "ru")

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LONGEST_TEXT = 500
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")

#: The labels that identify the subjects of each signal. A metric's rule sets its own (`by`).
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "service_down": ("service",),
    "instance_down": ("service", "instance"),
    "service_unhealthy": ("service", "instance"),
    "service_absent": ("service",),
    "drift": ("model", "version"),
}
#: Additional names that each signal's texts may use.
FACTS: Mapping[str, tuple[str, ...]] = {
    "service_down": ("last_seen",),
    "instance_down": ("last_seen",),
    "service_unhealthy": ("failing",),
    "drift": ("drifted",),
}
_EVERYWHERE = ("value", "threshold", "window", "rule")


class Texts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text in all languages; `{name}` is replaced by a label, `value`, `threshold`, …"""

    en: str
    ru: str = ""

    def of(self, language: str) -> str:
        """The text in that language, else in English."""
        return (self.ru if language == "ru" else self.en) or self.en


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One complete rule."""

    name: str
    enabled: bool = True
    signal: Signal = "metric"
    #: For the signal `metric`: its name, the series to use, and how they are combined.
    metric: str = ""
    kind: Kind = "gauge"
    labels: dict[str, Pattern] = {}
    #: For the kind `share`: the series that are counted, out of all that match `labels`.
    part: dict[str, Pattern] = {}
    #: One subject for each combination of these labels; several series of a subject are combined.
    by: list[str] = []
    aggregate: Aggregate | None = None
    quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.99
    #: The window of growth, rates, increases, shares and quantiles, in seconds.
    window_s: Annotated[float, msgspec.Meta(ge=10, le=86_400)] = 300.0
    #: Shares and quantiles need at least this many events.
    min_count: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    #: For `service_down`, `instance_down`, `service_unhealthy`: only these services (empty: all). For `service_absent`:
    #: services that must exist while one of `needed_by` runs.
    services: list[str] = []
    needed_by: list[str] = []
    above: float | None = None
    below: float | None = None
    #: The alert fires after the condition has held for this long. It is resolved after the value has been at
    #: `resolve_…` or beyond for `resolve_for_s`.
    for_s: _Seconds = 0.0
    resolve_below: float | None = None
    resolve_above: float | None = None
    resolve_for_s: _Seconds = 60.0
    #: When there is no value any more: `resolve` the alert after a minute, or `keep` it until there is a value.
    no_data: Literal["resolve", "keep"] = "resolve"
    severity: Severity = "warning"
    unit: Unit = "count"
    summary: Texts = Texts("{rule}: {value}", "{rule}: {value}")
    action: Texts = Texts("", "")

    @property
    def subject_labels(self) -> tuple[str, ...]:
        """The names of the labels of its subjects."""
        return SUBJECTS.get(self.signal, tuple(self.by))

    @property
    def threshold(self) -> float:
        """The value beyond which the condition holds."""
        return self.above if self.above is not None else self.below or 0.0

    def is_alarming(self, value: float) -> bool:
        """Whether the condition holds."""
        return value > self.above if self.above is not None else value < self.threshold

    def is_clear(self, value: float) -> bool:
        """Whether the value is at the resolve threshold or beyond. Between the thresholds it is neither.

        The threshold itself counts as clear, because a count that resolves at 0 can't get below it.
        """
        if self.is_alarming(value):
            return False
        if self.resolve_below is not None:
            return value <= self.resolve_below
        return self.resolve_above is None or value >= self.resolve_above


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
        rule = msgspec.convert({**fields, "name": name}, Rule)
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
