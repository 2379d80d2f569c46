"""The engine: a bad row fails alone, whatever is bad about it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from foretell.contracts.messages import Failure, Stage, Task, TaskEnvelope
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken, load_package
from foretell.inference.registry import ModelNotFound, Registry
from foretell.kit.clock import now, uuid7

from .conftest import Bench, MakePackage

MakeBench = Callable[..., Bench]

PREPROCESSING = """
from foretell.inference.package import InvalidField

def preprocess(row):
    if row["text"] == "bad":
        raise InvalidField("text", "must be a number")
    return {"x": float(row["text"])}
"""


def envelope(
    *payloads: bytes, stage: Stage = "features", model: str = "doubler", version: str = "1.0.0"
) -> TaskEnvelope:
    return TaskEnvelope(model, version, now(), [Task(uuid7(), stage, msgspec.Raw(payload)) for payload in payloads])


def codes(outcomes: list[Any]) -> list[str | None]:
    return [outcome.code if isinstance(outcome, Failure) else None for outcome in outcomes]


def test_a_batch_is_one_call(make_bench: MakeBench) -> None:
    bench = make_bench()
    outcomes = bench.engine.predict(bench.package, [{"x": 1}, {"x": 2}, {"x": 3}], "features")
    assert outcomes == [{"y": 2}, {"y": 4}, {"y": 6}]
    assert len(bench.model.batches) == 1


def test_no_call_is_larger_than_max_batch(make_bench: MakeBench) -> None:
    bench = make_bench(max_batch=4)
    outcomes = bench.engine.predict(bench.package, [{"x": number} for number in range(10)], "features")
    assert outcomes == [{"y": number * 2} for number in range(10)]
    assert [len(batch) for batch in bench.model.batches] == [4, 4, 2]


def test_a_row_that_does_not_fit_fails_alone_and_never_reaches_the_model(make_bench: MakeBench) -> None:
    bench = make_bench()
    outcomes = bench.engine.predict(
        bench.package, [{"x": 1}, {"x": "1"}, {}, None, {"x": math.nan}, {"x": 5}], "features"
    )
    assert codes(outcomes) == [None, "invalid_input", "invalid_input", "invalid_input", "invalid_input", None]
    assert outcomes[1] == Failure("invalid_input", "x must be a number.")
    assert (outcomes[0], outcomes[5]) == ({"y": 2}, {"y": 10})
    assert bench.model.batches == [[{"x": 1}, {"x": 5}]]


def test_only_the_row_on_which_the_model_raises_fails(make_bench: MakeBench) -> None:
    def answer(row: dict[str, Any]) -> dict[str, Any]:
        if row["x"] == 13:
            raise ValueError(f"cannot use {row['x'] * 1001}")
        return {"y": row["x"]}

    bench = make_bench(answer)
    labels = {"model": bench.package.name, "version": bench.package.version, "reason": "ValueError"}
    counted = REGISTRY.get_sample_value("foretell_model_failures_total", labels) or 0.0
    with capture_logs() as logs:
        outcomes = bench.engine.predict(bench.package, [{"x": 1}, {"x": 13}, {"x": 2}], "features")
    assert REGISTRY.get_sample_value("foretell_model_failures_total", labels) == counted + 1
    assert outcomes == [{"y": 1}, Failure("model_error", "The model failed on this input."), {"y": 2}]
    (failed,) = [entry for entry in logs if entry["event"] == "model_failed"]
    assert failed["error_type"] == "ValueError"
    assert "in answer" in failed["stack_trace"]
    # The error quotes a value of the input, as errors do: it stays out of the log.
    assert "13013" not in str(logs)


def test_a_model_that_loses_rows_is_not_believed(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.model.predict = lambda rows: [{"y": 0}]  # the right number for a single row only
    outcomes = bench.engine.predict(bench.package, [{"x": 1}, {"x": 2}], "features")
    assert outcomes == [{"y": 0}, {"y": 0}]
    bench.model.predict = lambda rows: []
    assert codes(bench.engine.predict(bench.package, [{"x": 1}, {"x": 2}], "features")) == ["model_error"] * 2


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf]])
def test_an_answer_that_is_not_finite_is_a_model_error(make_bench: MakeBench, value: Any) -> None:
    bench = make_bench(lambda row: {"y": value if row["x"] == 2 else 1.0})
    outcomes = bench.engine.predict(bench.package, [{"x": 1}, {"x": 2}], "features")
    assert outcomes[0] == {"y": 1.0}
    assert codes(outcomes) == [None, "model_error"]


@pytest.mark.parametrize("answer", [None, {}, {"y": None}, {"y": "secret"}, {"y": True}, [2.0], 2.0])
def test_an_answer_that_does_not_fit_its_schema_fails_alone(make_bench: MakeBench, answer: Any) -> None:
    bench = make_bench(lambda row: answer if row["x"] == 2 else {"y": 1.0})
    with capture_logs() as logs:
        outcomes = bench.engine.predict(bench.package, [{"x": 1}, {"x": 2}, {"x": 3}], "features")
        (alone,) = bench.engine.predict(bench.package, [{"x": 2}], "features")
    refused = Failure("model_error", "The model's answer to this input does not fit its schema.")
    assert outcomes == [{"y": 1.0}, refused, {"y": 1.0}]
    assert alone == refused
    problems = [entry["problem"] for entry in logs if entry["event"] == "model_output_not_fitting"]
    assert len(problems) == 2
    assert "secret" not in str(logs)


def test_preprocessing_names_the_field_of_a_bad_row(make_bench: MakeBench) -> None:
    bench = make_bench(preprocessing=PREPROCESSING)
    payloads = [{"text": "1"}, {"text": "bad"}, {"text": "words"}, {"text": "-5000"}, {"no": 1}, [], {"text": "2"}]
    with capture_logs() as logs:
        features = bench.engine.preprocess(bench.package, payloads)
        outcomes = bench.engine.predict(bench.package, payloads, "input")
    assert (features[0], features[6]) == ({"x": 1.0}, {"x": 2.0})
    assert (outcomes[0], outcomes[6]) == ({"y": 2.0}, {"y": 4.0})
    assert features[1] == outcomes[1] == Failure("invalid_input", "text must be a number.")
    assert features[3] == Failure("invalid_input", "After preprocessing: x must be at least -1000.")
    assert codes(features[1:6]) == codes(outcomes[1:6]) == ["invalid_input"] * 5
    # float("words") says "words" in its message: neither the user nor the log gets it.
    assert "words" not in str(features) + str(logs)


def test_preprocessing_needs_no_model(make_package: MakePackage) -> None:
    def refuse(package: ModelPackage) -> Any:
        raise AssertionError("the model must not be loaded")

    package = load_package(make_package(preprocessing=PREPROCESSING))
    engine = Engine(Registry([package]), load=refuse)
    assert engine.preprocess(package, [{"text": "4"}]) == [{"x": 4.0}]


def test_vectorised_preprocessing_falls_back_to_rows(make_bench: MakeBench) -> None:
    code = """
from foretell.inference.package import InvalidField

def preprocess(rows):
    if any(row["text"] == "bad" for row in rows):
        raise InvalidField("text", "must be a number")
    return [InvalidField("text", "is odd") if row["text"] == "odd" else {"x": float(row["text"])} for row in rows]
"""
    bench = make_bench(preprocessing=code, more='preprocessing_takes = "rows"')
    texts = ["1", "odd", "bad", "2"]
    assert bench.engine.preprocess(bench.package, [{"text": text} for text in texts]) == [
        {"x": 1.0},
        Failure("invalid_input", "text is odd."),
        Failure("invalid_input", "text must be a number."),
        {"x": 2.0},
    ]


def test_without_preprocessing_input_is_features(make_bench: MakeBench) -> None:
    bench = make_bench()
    assert bench.engine.predict(bench.package, [{"x": 4}], "input") == [{"y": 8}]
    assert bench.engine.preprocess(bench.package, [{"x": 4}]) == [{"x": 4}]


def test_run_answers_every_task_in_order(make_bench: MakeBench) -> None:
    bench = make_bench(preprocessing=PREPROCESSING)
    tasks = [
        Task(uuid7(), "features", msgspec.Raw(b'{"x": 1}')),
        Task(uuid7(), "input", msgspec.Raw(b'{"text": "2"}')),
        Task(uuid7(), "features", msgspec.Raw(b'{"x": 1')),
        Task(uuid7(), "features", msgspec.Raw(b'{"x": NaN}')),
        Task(uuid7(), "features", msgspec.Raw(b'{"x": 1e999}')),
        Task(uuid7(), "features", msgspec.Raw(b"[" * 100_000)),
        Task(uuid7(), "features", msgspec.Raw(b'"\xff"')),
        Task(uuid7(), "input", msgspec.Raw(b'{"text": "3"}')),
    ]
    results = bench.engine.run(TaskEnvelope("doubler", "1.0.0", now(), tasks))
    assert [result.id for result in results] == [task.id for task in tasks]
    outputs = [msgspec.json.decode(result.output) if result.output else None for result in results]
    assert outputs == [{"y": 2}, {"y": 4.0}, None, None, None, None, None, {"y": 6.0}]
    assert [result.error.code for result in results if result.error] == ["invalid_input"] * 5
    assert all(bool(result.output) != bool(result.error) for result in results)


@pytest.mark.parametrize(("model", "version"), [("absent", "1.0.0"), ("doubler", "9.9.9")])
def test_a_model_that_is_not_here_fails_every_task(make_bench: MakeBench, model: str, version: str) -> None:
    results = make_bench().engine.run(envelope(b'{"x": 1}', b"{}", model=model, version=version))
    assert [result.error.code for result in results if result.error] == ["model_error"] * 2
    assert all("not installed on this worker" in result.error.message for result in results if result.error)


def test_an_output_that_json_does_not_have_is_a_model_error(make_bench: MakeBench) -> None:
    bench = make_bench(lambda row: {"y": object() if row["x"] == 2 else 1})
    first, second = bench.engine.run(envelope(b'{"x": 1}', b'{"x": 2}'))
    assert first.output is not None
    assert second.error is not None
    assert second.error.code == "model_error"


def test_a_tampered_artifact_is_refused_before_it_is_loaded(make_package: MakePackage) -> None:
    options = '[options]\noutputs = [{ field = "y", tensor = "y" }]'
    folder = make_package(more=options)
    (folder / "model.onnx").write_bytes(b"something else")
    engine = Engine(Registry([load_package(folder)]))
    with pytest.raises(PackageBroken, match="sha256"):
        engine.warm("doubler")
    assert not engine.is_loaded("doubler", "1.0.0")
    (result,) = engine.run(envelope(b'{"x": 1}'))
    assert result.error == Failure("model_error", "The model doubler 1.0.0 could not be loaded on this worker.")


def test_what_is_broken_keeps_no_other_from_being_warmed(make_package: MakePackage) -> None:
    paths: list[Path] = [make_package("a"), make_package("b", name="bad")]

    def load(package: ModelPackage) -> Any:
        if package.name == "bad":
            raise PackageBroken("Broken", package.path, "Mend it.")
        return Bench(paths[0], None)

    engine = Engine(Registry([load_package(path) for path in paths]), load=load)
    with pytest.raises(PackageBroken, match="Mend it"):
        engine.warm("bad")
    engine.warm("doubler")
    assert engine.is_loaded("doubler", "1.0.0")
    with pytest.raises(ModelNotFound):
        engine.warm("absent")


@pytest.mark.parametrize(
    ("code", "said"), [("1 / 0", "cannot be imported"), ("def other(): ...", "no function preprocess")]
)
def test_broken_preprocessing_is_named(make_bench: MakeBench, code: str, said: str) -> None:
    bench = make_bench(preprocessing=code)
    with pytest.raises(PackageBroken, match=said):
        bench.engine.preprocess(bench.package, [{}])


def test_a_lazy_model_is_loaded_at_the_start_but_makes_its_first_prediction_when_asked(make_bench: MakeBench) -> None:
    example = "[[examples]]\nfeatures = { x = 1 }\noutput = { y = 2 }\n"
    eager, lazy = make_bench(more=example, folder="eager"), make_bench(more="lazy = true\n" + example, folder="lazy")
    for bench in (eager, lazy):
        bench.engine.warm("doubler")
        assert bench.engine.is_loaded("doubler", "1.0.0")
    assert eager.model.batches == [[{"x": 1}]]
    assert lazy.model.batches == []
    assert lazy.engine.predict(lazy.package, [{"x": 3}], "features") == [{"y": 6}]
