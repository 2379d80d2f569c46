"""Checks a package before it is installed."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foretell.contracts.messages import Failure, Stage
from foretell.inference.differences import differs
from foretell.inference.engine import Engine
from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, load_package
from foretell.inference.reference import ReferenceBroken, not_compared, read_reference
from foretell.inference.registry import Registry
from foretell.inference.runtimes import Runtime
from foretell.inference.sampling import samples
from foretell.inference.schema import sentence

Row = dict[str, Any]

_MOST_ROWS = 64
#: Limits of a measurement: seconds, and calls.
_MEASURE_S = 0.5
_MOST_CALLS = 50
#: How many problems are named; the others are only counted.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One step of a check: its subject, its result, and a description."""

    step: str
    outcome: Literal["ok", "warning", "wrong"]
    detail: str


Report = Callable[[Finding], None]


def check(folder: Path, load: Callable[[ModelPackage], Runtime], report: Report) -> ModelPackage | None:
    """Check the package in `folder`; calls `report` for each step. Returns the package, or None if it is wrong."""
    try:
        package = load_package(folder)
    except PackageBroken as error:
        report(Finding("package", "wrong", error.message))
        return None
    report(Finding("package", "ok", f"{package.name} {package.version}, runtime {package.manifest.runtime}"))
    began = time.perf_counter()
    try:
        runtime = load(package)
        check = _Check(package, runtime, report)
        check.engine.preprocess(package, [])
    except PackageBroken as error:
        report(Finding("load", "wrong", error.message))
        return None
    report(Finding("load", "ok", f"in {_duration(time.perf_counter() - began)}"))
    check.run()
    check.reference()
    return None if check.wrong else package


class _Check:
    """The steps that need a loaded model."""

    def __init__(self, package: ModelPackage, runtime: Runtime, report: Report) -> None:
        self.package = package
        self.runtime = runtime
        self.engine = Engine(Registry([package]), load=lambda _: runtime)
        self.stage: Stage = "input" if package.has_preprocessing else "features"
        self.wrong = False
        self._report = report

    def run(self) -> None:
        self._examples()
        rows = self._rows()
        if not rows:
            detail = f"No value that fits the schema of the {self.stage} can be made up. Add examples to {MANIFEST}."
            self._say("rows", "warning", detail)
            return
        answered = self._single(rows)
        if answered and not self.wrong:
            self._batch(answered)
            self._measure([row for row, _ in answered])

    def reference(self) -> None:
        """Check the reference for drift. A model can be installed without one."""
        try:
            reference = read_reference(self.package.path)
        except ReferenceBroken as error:
            self._say("reference", "warning", error.message)
            return
        if reference is None:
            self._say("reference", "ok", "none: drift can't be seen. foretell models reference makes one")
            return
        known = self.package.features_schema.get("properties", {})
        strange = [name for name in reference.features if name.split(".")[0] not in known]
        passed_over = not_compared(reference, self.package.features_schema, self.package.output_schema)
        if strange and known:
            self._say("reference", "warning", f"has features that the model does not take: {', '.join(strange)}")
        elif passed_over:
            each = "; ".join(f"{one.part} {one.name}: {one.reason.removesuffix('.')}" for one in passed_over[:_NAMED])
            more = f"; and {len(passed_over) - _NAMED} more" if len(passed_over) > _NAMED else ""
            self._say("reference", "warning", f"drift of these can't be seen: {each}{more}")
        else:
            self._say("reference", "ok", f"{len(reference.features)} features of {reference.rows} rows")

    def _say(self, step: str, outcome: Literal["ok", "warning", "wrong"], detail: str) -> None:
        self.wrong = self.wrong or outcome == "wrong"
        self._report(Finding(step, outcome, detail))

    def _examples(self) -> None:
        examples = self.package.examples
        if not examples:
            self._say("examples", "warning", f"There are none. People learn from them: add [[examples]] to {MANIFEST}.")
            return
        for number, example in enumerate(examples, 1):
            stage: Stage = "features" if example.input is None else "input"
            asked = getattr(example, stage)
            (answer,) = self.engine.predict(self.package, [asked], stage)
            if isinstance(answer, Failure):
                self._say("examples", "wrong", f"Example {number} fails: {self._why(asked, stage, answer)}")
                return
            difference = differs(example.output, answer, tolerance=self.package.manifest.tolerance)
            if difference:
                self._say("examples", "wrong", f"Example {number} gives another output: {difference}.")
                return
        self._say("examples", "ok", f"all {len(examples)} give the output they say")

    def _rows(self) -> list[Row]:
        given = [getattr(example, self.stage) for example in self.package.examples]
        made = samples(self.package.schema(self.stage), _MOST_ROWS)
        return [row for row in [*given, *made] if row is not None][:_MOST_ROWS]

    def _single(self, rows: list[Row]) -> list[tuple[Row, Row]]:
        """Run each row alone; returns the successful ones with their answers."""
        answered: list[tuple[Row, Row]] = []
        for row in rows:
            (answer,) = self.engine.predict(self.package, [row], self.stage)
            if not isinstance(answer, Failure):
                answered.append((row, answer))
            elif answer.code != "invalid_input":
                self._say("rows", "wrong", f"The model fails on {row}: {self._why(row, self.stage, answer)}")
                return []
        # Preprocessing may refuse values that the schema allows.
        refused = len(rows) - len(answered)
        detail = f"{len(answered)} made-up rows answered" + (f", {refused} refused" if refused else "")
        self._say("rows", "ok" if answered else "warning", detail)
        return answered

    def _batch(self, answered: list[tuple[Row, Row]]) -> None:
        if self.package.max_batch == 1:
            self._say("batch", "ok", "max_batch is 1: rows are never together")
            return
        together = self.engine.predict(self.package, [row for row, _ in answered], self.stage)
        for (row, alone), answer in zip(answered, together, strict=True):
            difference = answer.message if isinstance(answer, Failure) else differs(alone, answer)
            if difference:
                detail = f"In a batch of {len(answered)} the answer to {row} is another than alone: {difference}."
                self._say("batch", "wrong", f"{detail} Each row must be answered on its own; or set max_batch = 1.")
                return
        self._say("batch", "ok", f"{len(answered)} rows together give what each gives alone")

    def _measure(self, rows: list[Row]) -> None:
        size = self.package.max_batch
        batch = [rows[place % len(rows)] for place in range(size)]
        row_s = _median_s(lambda: self.engine.predict(self.package, rows[:1], self.stage))
        batch_s = _median_s(lambda: self.engine.predict(self.package, batch, self.stage))
        detail = f"{_duration(row_s)} for a row, {_duration(batch_s)} for a batch of {size}"
        limit_s = self.package.timeout_s
        if batch_s > limit_s / 2:
            self._say("time", "warning", f"{detail}: close to timeout_s = {limit_s:g}. Lower max_batch.")
        else:
            self._say("time", "ok", detail)

    def _why(self, asked: Row, stage: Stage, failure: Failure) -> str:
        """The model's own error message; its owner, who runs the check, may see values in it."""
        if failure.code != "model_error":
            return failure.message
        try:
            features = asked if stage == "features" else self.engine.preprocess(self.package, [asked])[0]
            (answer,) = self.runtime.predict([features])  # type: ignore[list-item]  # a failure would have ended it before
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        problems = self.package.output_validator.problems(answer)
        return (
            f"The answer {answer} does not fit output.schema.json: {sentence(problems)}"
            if problems
            else failure.message
        )


def _median_s(call: Callable[[], object]) -> float:
    took_s: list[float] = []
    until = time.perf_counter() + _MEASURE_S
    while len(took_s) < 2 or (len(took_s) < _MOST_CALLS and time.perf_counter() < until):
        began = time.perf_counter()
        call()
        took_s.append(time.perf_counter() - began)
    return statistics.median(took_s)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.1f} s"
