"""The rules of alerting: what a rule says, and the answer of `GET /alerts/rules`."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

Kind = Literal["gauge", "growth", "age", "rate", "increase", "share", "quantile"]
Signal = Literal["metric", "service_down", "instance_down", "service_unhealthy", "service_absent", "drift"]
Severity = Literal["info", "warning", "critical"]
Aggregate = Literal["max", "min", "sum", "avg"]
Unit = Literal["count", "seconds", "share", "bytes"]
#: One or several patterns of a label's value, with `*` and `?`; `!` in front excludes values.
Pattern = str | list[str]

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=30 * 86_400)]

#: The labels that identify the subjects of each signal. A metric's rule sets its own (`by`).
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "service_down": ("service",),
    "instance_down": ("service", "instance"),
    "service_unhealthy": ("service", "instance"),
    "service_absent": ("service",),
    "drift": ("model", "version"),
}


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


class ShownMistake(msgspec.Struct, frozen=True):
    """An error in the rule file."""

    file: str
    rule: str
    field: str
    detail: str


class RuleList(msgspec.Struct, frozen=True):
    """The rules in force, the errors in the operator's file, and the rules that could not be measured."""

    #: The operator's file; null: none.
    file: str | None
    rules: list[Rule]
    mistakes: list[ShownMistake]
    #: The reason by the name of the rule.
    failing: dict[str, str]
