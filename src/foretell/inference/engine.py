"""Runs models: raw payloads in, outputs or failures out, row for row.

This is the hot path of a worker. Work is done once for a whole batch if possible, and row by row if a bad row must not
affect the others.
"""

import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from typing import Any

import msgspec
import structlog

from foretell.contracts.messages import Failure, Result, Stage, TaskEnvelope
from foretell.inference.measures import count_failure
from foretell.inference.observing import Seen, Watch, unwatched
from foretell.inference.package import InvalidField, ModelPackage, PackageBroken
from foretell.inference.preprocessing import Preprocessing, load_preprocessing
from foretell.inference.registry import ModelNotFound, Registry
from foretell.inference.runtimes import ModelAway, Runtime, load_runtime
from foretell.inference.schema import Validator, is_finite, sentence

log = structlog.get_logger(__name__)

Row = dict[str, Any]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Loaded:
    package: ModelPackage
    runtime: Runtime
    preprocessing: Preprocessing
    #: The observer of each call.
    seen: Seen | None


class Engine:
    """The models of `registry`, each loaded when it is first needed or warmed. Thread-safe."""

    def __init__(
        self,
        registry: Registry,
        *,
        load: Callable[[ModelPackage], Runtime] = load_runtime,
        watch: Watch = unwatched,
    ) -> None:
        """`load` loads the model of a package, checking its hash first; it raises `PackageBroken`.

        `watch` returns the observer of that model's calls (see observing.py), or None.
        """
        self.registry = registry
        self._load = load
        self._watch = watch
        #: By the identity of their packages, which are kept alive here: a package with changed files is another
        #: object.
        self._loaded: dict[int, _Loaded] = {}
        self._preprocessing: dict[int, tuple[ModelPackage, Preprocessing]] = {}
        #: A lock for each package that is being loaded, so that a slow load does not block the others.
        self._locks: dict[int, tuple[ModelPackage, threading.RLock]] = {}
        self._changing = threading.Lock()

    def warm(self, name: str, version: str | None = None) -> None:
        """Load a model and make its first prediction, so that no user waits for it.

        A model with `lazy` in its manifest is loaded, to detect missing libraries, but not run.
        Raises `ModelNotFound`, `PackageBroken`.
        """
        self.warm_package(self.registry.get(name, version))

    def warm_package(self, package: ModelPackage) -> None:
        """The same for a package. Raises `PackageBroken`."""
        if id(package) in self._loaded:
            return
        self._get(package)
        if package.manifest.lazy:
            return
        for example in package.examples[:1]:
            stage: Stage = "features" if example.input is None else "input"
            self.predict(package, [getattr(example, stage)], stage, rehearsal=True)

    def is_loaded(self, name: str, version: str) -> bool:
        """Whether this model version is in memory."""
        try:
            return id(self.registry.resolve(name, version)) in self._loaded
        except ModelNotFound:
            return False

    def keep_only(self, packages: Iterable[ModelPackage]) -> None:
        """Unload every model except those of `packages`. Running calls are finished."""
        kept = {id(package) for package in packages}
        with self._changing:
            self._loaded = {key: each for key, each in self._loaded.items() if key in kept}
            self._preprocessing = {key: each for key, each in self._preprocessing.items() if key in kept}
            self._locks = {key: each for key, each in self._locks.items() if key in kept}

    def preprocess(self, package: ModelPackage, payloads: Sequence[Any]) -> list[Row | Failure]:
        """Features for each payload of stage `input`, or a `Failure("invalid_input")` that names the field.

        Needs no artifact: it neither loads the model nor imports its runtime. Raises `PackageBroken` when the
        package's preprocessing cannot be loaded.
        """
        return _where_valid(payloads, package.input_validator, self._get_preprocessing(package))

    def predict(
        self, package: ModelPackage, payloads: Sequence[Any], stage: Stage, *, rehearsal: bool = False
    ) -> list[Row | Failure]:
        """One output or failure for each payload, in order. Never raises for errors of a payload or model.

        `invalid_input` for a payload that does not match its schema; `model_error` if the model raises, or if its
        output does not match its schema. Models are called with at most `package.max_batch` rows.
        A `rehearsal` is not a request of a user, so it is not observed.
        """
        try:
            loaded = self._get(package)
        except PackageBroken as error:
            log.error("model_not_loaded", model=package.name, version=package.version, reason=error.message)
            message = f"The model {package.name} {package.version} could not be loaded on this worker."
            return [Failure("model_error", message)] * len(payloads)
        size = package.max_batch
        if len(payloads) > size:
            chunks = [payloads[start : start + size] for start in range(0, len(payloads), size)]
            return [outcome for chunk in chunks for outcome in self.predict(package, chunk, stage, rehearsal=rehearsal)]
        seen = None if rehearsal else loaded.seen

        def forward(rows: list[Row]) -> list[Row | Failure]:
            outcomes = _forward(package, loaded.runtime, rows)
            if seen is not None:
                seen(rows, outcomes)
            return outcomes

        if stage == "features":
            return _where_valid(payloads, package.features_validator, forward)

        def preprocess_and_forward(rows: list[Row]) -> list[Row | Failure]:
            return _where_features(loaded.preprocessing(rows), forward)

        return _where_valid(payloads, package.input_validator, preprocess_and_forward)

    def run(self, envelope: TaskEnvelope) -> list[Result]:
        """The results of an envelope's tasks, in order. Never raises for its content."""
        tasks = envelope.tasks
        try:
            package = self.registry.resolve(envelope.model, envelope.version)
        except ModelNotFound:
            log.error("model_not_installed", model=envelope.model, version=envelope.version, tasks=len(tasks))
            message = f"The model {envelope.model} {envelope.version} is not installed on this worker."
            return [Result(task.id, error=Failure("model_error", message)) for task in tasks]
        outcomes: list[Row | Failure | None] = [None] * len(tasks)
        stages: dict[Stage, tuple[list[int], list[Any]]] = {"input": ([], []), "features": ([], [])}
        for place, task in enumerate(tasks):
            try:
                payload = _decode(task.payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                outcomes[place] = Failure("invalid_input", "The value must be JSON.")
                continue
            places, payloads = stages[task.stage]
            places.append(place)
            payloads.append(payload)
        for stage, (places, payloads) in stages.items():
            if payloads:
                for place, outcome in zip(places, self.predict(package, payloads, stage), strict=True):
                    outcomes[place] = outcome
        return [_result(package, task.id, outcome) for task, outcome in zip(tasks, outcomes, strict=True)]

    def _get(self, package: ModelPackage) -> _Loaded:
        loaded = self._loaded.get(id(package))
        if loaded is not None:
            return loaded
        with self._lock_of(package):
            loaded = self._loaded.get(id(package))
            if loaded is None:
                runtime = self._load(package)
                preprocessing = self._get_preprocessing(package)
                loaded = _Loaded(package, runtime, preprocessing, self._watch(package))
                with self._changing:
                    self._loaded[id(package)] = loaded
                log.info("model_loaded", model=package.name, version=package.version)
            return loaded

    def _get_preprocessing(self, package: ModelPackage) -> Preprocessing:
        known = self._preprocessing.get(id(package))
        if known is not None:
            return known[1]
        with self._lock_of(package):
            known = self._preprocessing.get(id(package))
            if known is None:
                known = package, load_preprocessing(package)
                with self._changing:
                    self._preprocessing[id(package)] = known
            return known[1]

    def _lock_of(self, package: ModelPackage) -> threading.RLock:
        with self._changing:
            return self._locks.setdefault(id(package), (package, threading.RLock()))[1]


def _where_valid(
    payloads: Sequence[Any], validator: Validator, step: Callable[[list[Row]], list[Row | Failure]]
) -> list[Row | Failure]:
    """`step` on the payloads that match the schema; for each other one a failure that names the field."""
    if len(payloads) > 1 and validator.are_valid(rows := list(payloads)):
        return step(rows)
    fits = validator.is_valid
    checked: list[Row | Failure] = [
        payload if fits(payload) else Failure("invalid_input", sentence(validator.problems(payload)))
        for payload in payloads
    ]
    return _where_features(checked, step)


def _where_features(
    outcomes: list[Row | Failure], step: Callable[[list[Row]], list[Row | Failure]]
) -> list[Row | Failure]:
    """`step` on the rows that have not failed yet; failures keep their positions."""
    rows = [outcome for outcome in outcomes if type(outcome) is not Failure]
    if not rows:
        return outcomes
    answers = step(rows)  # type: ignore[arg-type]  # what is no Failure is a row
    if len(rows) == len(outcomes):
        return answers
    following = iter(answers)
    return [outcome if type(outcome) is Failure else next(following) for outcome in outcomes]


def _forward(package: ModelPackage, runtime: Runtime, rows: list[Row]) -> list[Row | Failure]:
    """One call of the model; if it raises, one call for each row, so that only bad rows fail."""
    try:
        outputs = runtime.predict(rows)
        if len(outputs) != len(rows):
            raise RuntimeError(f"{len(rows)} rows went in and {len(outputs)} outputs came out")
    except ModelAway as error:
        log.error("model_away", model=package.name, version=package.version, rows=len(rows), reason=str(error))
        count_failure(package, "away", len(rows))
        return [Failure("model_error", "The model cannot be reached just now.")] * len(rows)
    except Exception as error:
        if len(rows) > 1:
            return [_forward(package, runtime, [row])[0] for row in rows]
        if isinstance(error, InvalidField):
            return [Failure("invalid_input", f"{error}.")]
        # The message of the error may contain values of the input, so only its type and place are logged.
        log.error(
            "model_failed",
            model=package.name,
            version=package.version,
            error_type=type(error).__name__,
            stack_trace="".join(traceback.format_tb(error.__traceback__)[-3:]),
        )
        count_failure(package, type(error).__name__)
        return [Failure("model_error", "The model failed on this input.")]
    validator = package.output_validator
    if _surely_finite(outputs) and validator.are_valid_if_finite(outputs):
        return list(outputs)
    return [output if validator.is_valid(output) else _not_fitting(package, output) for output in outputs]


def _surely_finite(outputs: Sequence[Row]) -> bool:
    """Whether all numbers are surely finite. Checks their sum, which is finite only if all are; False: unknown."""
    try:
        return isfinite(sum(chain.from_iterable(map(dict.values, outputs)), 0.0))
    except (TypeError, ValueError, OverflowError):
        return False


def _not_fitting(package: ModelPackage, output: Any) -> Failure:
    """The failure for a row whose output does not match the package's schema; it is not charged."""
    if not is_finite(output):
        log.error("model_output_not_finite", model=package.name, version=package.version)
        count_failure(package, "not_finite")
        return Failure("model_error", "The model's answer to this input is not a finite number.")
    problem = sentence(package.output_validator.problems(output))
    log.error("model_output_not_fitting", model=package.name, version=package.version, problem=problem)
    count_failure(package, "not_fitting")
    return Failure("model_error", "The model's answer to this input does not fit its schema.")


def _result(package: ModelPackage, task_id: Any, outcome: Row | Failure | None) -> Result:
    if type(outcome) is Failure:
        return Result(task_id, error=outcome)
    try:
        return Result(task_id, output=msgspec.Raw(_encode(outcome)))
    except (TypeError, ValueError, RecursionError) as error:
        # The output has a value that JSON does not have, such as a numpy value.
        log.error("model_output_not_json", model=package.name, version=package.version, error_type=type(error).__name__)
        count_failure(package, "not_json")
        return Result(task_id, error=Failure("model_error", "The model's answer to this input is not JSON."))
