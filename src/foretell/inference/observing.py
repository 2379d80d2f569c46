"""Counts the inputs and outputs of a model in the bins of its package's reference, to detect drift.

It must not slow predictions: a few rows of a batch are kept until the next second, sampled so that each row of
a second has the same chance, whatever its batch; a separate thread counts them. Values are never sent, and are dropped
after counting.
"""

import math
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import structlog

from foretell.contracts.messages import Failure
from foretell.contracts.monitoring import Observation, Observed
from foretell.inference.package import ModelPackage
from foretell.inference.reference import Categories, Field, Numbers, Reference, ReferenceBroken, read_reference
from foretell.inference.settings import InferenceSettings
from foretell.kit import shipping
from foretell.kit.clock import now
from foretell.kit.randomness import RANDOM

log = structlog.get_logger(__name__)

Row = dict[str, Any]

_COUNT_EVERY_S = 1.0
#: More rows are sampled than needed, by this factor, so that there are enough.
_MARGIN = 1.5
#: An integer of more bits is not a category, and its text would take long to create.
_MOST_BITS = 64

#: Called with the features of one call of a model and their outcomes; returns at once and never raises.
Seen = Callable[[Sequence[Row], Sequence[Row | Failure]], None]
#: Returns the observer of a model's calls, or None.
Watch = Callable[[ModelPackage], Seen | None]


def unwatched(package: ModelPackage) -> Seen | None:
    """No observer."""
    return None


def observe(settings: InferenceSettings) -> Watch:
    """Observe the models of this process for its heartbeats, if there is a monitoring service."""
    if not settings.monitoring_url or not settings.observed_rows_per_s:
        return unwatched
    observer = Observer(settings.observed_rows_per_s)
    observer.start()
    shipping.observations = observer.take
    return observer.watch


class Observer:
    """The observations of all models of a process. `take()` may be called from any thread."""

    def __init__(self, rows_per_s: int) -> None:
        """About `rows_per_s` rows of each model version are sampled."""
        self._size = max(1, round(rows_per_s * _COUNT_EVERY_S))
        # Samplers live as long as their models.
        self._samplers: weakref.WeakSet[Sampler] = weakref.WeakSet()
        self._adding = threading.Lock()

    def start(self) -> None:
        """Start counting, until the process ends."""
        threading.Thread(target=self._run, name="observer", daemon=True).start()

    def watch(self, package: ModelPackage) -> Seen | None:
        """The function to call with the rows of that model; None if the package has no usable reference."""
        try:
            reference = read_reference(package.path)
        except ReferenceBroken as error:
            log.warning("reference_broken", model=package.name, version=package.version, reason=error.message)
            return None
        if reference is None:
            return None
        sampler = Sampler(package.name, package.version, reference, self._size)
        with self._adding:
            self._samplers.add(sampler)
        return sampler.offer

    def take(self) -> list[Observation]:
        """The observations since the last call, by model version; none of versions without calls."""
        return [seen for sampler in self._known() if (seen := sampler.take()) is not None]

    def _known(self) -> "list[Sampler]":
        with self._adding:
            return list(self._samplers)

    def _run(self) -> None:
        while True:
            time.sleep(_COUNT_EVERY_S)
            for sampler in self._known():
                sampler.count()


class Sampler:
    """Samples and counts the rows of one model version."""

    # `offer` is called for each batch, so its fields should be close together in memory.
    __slots__ = (
        "__weakref__",
        "_chance",
        "_counting",
        "_drawing",
        "_drawn",
        "_features",
        "_model",
        "_next",
        "_outputs",
        "_passed",
        "_passed_before",
        "_rows",
        "_sha256",
        "_since",
        "_size",
        "_version",
    )

    def __init__(self, model: str, version: str, reference: Reference, size: int) -> None:
        """Up to `size` of the rows between two counts are counted."""
        self._model = model
        self._version = version
        self._sha256 = reference.sha256
        self._size = size
        self._features = _Fields(reference.features)
        self._outputs = _Fields(reference.outputs)
        self._drawing = threading.Lock()
        self._counting = threading.Lock()
        self._since = now()
        self._rows = 0
        self._passed_before = 0
        self._begin(0)

    def _begin(self, passed: int) -> None:
        """Begin a new sample, expecting about `passed` rows."""
        self._drawn: list[tuple[Row, Row | Failure]] = []
        self._passed = 0
        #: The probability of each row. A little too high is better than too few rows.
        self._chance = min(1.0, _MARGIN * self._size / max(passed, 1))
        #: The number of the next sampled row since the last count.
        self._next = self._skip()

    def offer(self, rows: Sequence[Row], outcomes: Sequence[Row | Failure]) -> None:
        """Sample from these features and their outcomes. They must not be changed afterwards."""
        with self._drawing:
            first = self._passed
            self._passed = last = first + len(rows)
            while self._next < last:
                place = self._next - first
                self._drawn.append((rows[place], outcomes[place]))
                if len(self._drawn) >= 2 * self._size:
                    # More rows than expected: drop half of the sample and halve the probability.
                    self._chance /= 2
                    self._drawn = [row for row in self._drawn if RANDOM.getrandbits(1)]
                self._next += 1 + self._skip()

    def _skip(self) -> int:
        """The number of rows to skip before the next sampled one."""
        if self._chance == 1.0:
            return 0
        # `random()` can be 0, never 1.
        return int(math.log(1.0 - RANDOM.random()) / math.log1p(-self._chance))

    def count(self) -> None:
        """Count the sample, and begin a new one."""
        with self._counting:
            self._count()

    def _count(self) -> None:
        with self._drawing:
            drawn, passed = self._drawn, self._passed
            if not passed and self._chance == 1.0:
                return
            self._begin(passed)
        if len(drawn) > self._size:
            drawn = RANDOM.sample(drawn, self._size)
        self._passed_before += passed
        for row, outcome in drawn:
            try:
                features = self._features.pick(row)
                outputs = None if type(outcome) is Failure else self._outputs.pick(outcome)
            except AttributeError:
                # The answer is not an object, so there is nothing to count.
                continue
            self._rows += 1
            self._features.count(features)
            if outputs is not None:
                self._outputs.count(outputs)

    def take(self) -> Observation | None:
        """The counts since the last call."""
        with self._counting:
            self._count()
            until = now()
            since, self._since = self._since, until
            if not self._passed_before:
                return None
            return self._taken(since, until)

    def _taken(self, since: datetime, until: datetime) -> Observation:
        observation = Observation(
            model=self._model,
            version=self._version,
            reference_sha256=self._sha256,
            since=since,
            until=until,
            rows=self._rows,
            passed=self._passed_before,
            features=self._features.take(),
            outputs=self._outputs.take(),
        )
        self._rows = self._passed_before = 0
        return observation


class _Fields:
    """The counters of the features, or of the outputs."""

    def __init__(self, fields: dict[str, Field]) -> None:
        self._names = list(fields)
        self._nested = [(place, name.split(".")) for place, name in enumerate(fields) if "." in name]
        self._counters = [counter(field) for field in fields.values()]

    def pick(self, row: Any) -> list[Any]:
        """The values of a row in the order of the fields, None for missing ones."""
        if not self._names:
            return []
        get = row.get
        values = [get(name) for name in self._names]
        for place, steps in self._nested:
            if values[place] is None:
                inner = row
                for step in steps:
                    inner = inner.get(step) if isinstance(inner, dict) else None
                values[place] = inner
        return values

    def count(self, values: list[Any]) -> None:
        """Count the values from `pick`. Never raises."""
        for counter, value in zip(self._counters, values, strict=True):
            if value is None:
                counter.missing += 1
            else:
                counter.count(value)

    def take(self) -> dict[str, Observed]:
        """The counts since the last call; resets them."""
        return {name: counter.take() for name, counter in zip(self._names, self._counters, strict=True)}


def counter(field: Field) -> "_NumbersSeen | _CategoriesSeen":
    """The counter for one field."""
    return _NumbersSeen(field) if isinstance(field, Numbers) else _CategoriesSeen(field)


class _NumbersSeen:
    """Numbers, counted in the bins of the reference."""

    def __init__(self, field: Numbers) -> None:
        self._low, *self._inner, self._high = field.edges
        self._of_length = field.of == "length"
        self._bins = len(field.counts)
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * self._bins
        self._below = self._above = self._unplaced = self.missing = 0

    def count(self, value: Any) -> None:
        """Count one value that is not None."""
        number = _length(value) if self._of_length else _number(value)
        if number is None:
            self._unplaced += 1
        # Only NaN differs from itself.
        elif number != number:
            self.missing += 1
        elif number < self._low:
            self._below += 1
        elif number > self._high:
            self._above += 1
        else:
            self._counts[bisect_right(self._inner, number)] += 1

    def take(self) -> Observed:
        """The counts since the last call; resets them."""
        seen = Observed(self._counts, self._below, self._above, self._unplaced, self.missing)
        self._begin()
        return seen


class _CategoriesSeen:
    """Categories, counted in the order of the reference."""

    def __init__(self, field: Categories) -> None:
        self._bins = len(field.counts)
        self._places = {name: place for place, name in enumerate(field.counts)}
        for texts in (("true", "True", "1"), ("false", "False", "0")):
            # The reference may have truth values in another notation.
            known = next((self._places[text] for text in texts if text in self._places), None)
            if known is not None:
                self._places.setdefault(texts[0], known)
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * self._bins
        self._unseen = self.missing = 0

    def count(self, value: Any) -> None:
        """Count one value that is not None."""
        text = category(value)
        place = None if text is None else self._places.get(text)
        if place is None:
            self._unseen += 1
        else:
            self._counts[place] += 1

    def take(self) -> Observed:
        """The counts since the last call; resets them."""
        seen = Observed(self._counts, unseen=self._unseen, missing=self.missing)
        self._begin()
        return seen


def _number(value: Any) -> float | int | None:
    """A number unchanged, a truth value as 0 or 1; None for other values."""
    if isinstance(value, float | int):
        return value
    # A numpy scalar, from the package's preprocessing.
    item = getattr(value, "item", None)
    plain = item() if item is not None and getattr(value, "shape", None) == () else None
    return plain if isinstance(plain, float | int) else None


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, str | list) else None


def category(value: Any) -> str | None:
    """The category of a value as text; None for values that can't be one (a list, an object)."""
    if isinstance(value, str):
        return value
    number = _number(value)
    if number is None:
        return None
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, float):
        # A model may answer 1 or 1.0 for the same class.
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    return str(number) if number.bit_length() <= _MOST_BITS else None
