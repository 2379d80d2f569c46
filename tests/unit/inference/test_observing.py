"""What the observer sees of a model's rows, and that it is a fair sample of them."""

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from foretell.contracts.messages import Failure
from foretell.contracts.monitoring import Observation, Observed
from foretell.inference.engine import Engine
from foretell.inference.observing import Observer, Sampler, observe, unwatched
from foretell.inference.package import load_package
from foretell.inference.reference import Categories, Field, Numbers, Reference
from foretell.inference.registry import Registry
from foretell.inference.settings import InferenceSettings
from foretell.kit import shipping
from foretell.kit.randomness import RANDOM

from .conftest import MakePackage, Model

TENS = Numbers([0.0, 10.0, 20.0], [1, 1])
COLOURS = Categories({"red": 5, "green": 5})


def sampler(features: dict[str, Field], outputs: dict[str, Field] | None = None, size: int = 1000) -> Sampler:
    return Sampler("doubler", "1.0.0", Reference(10, features, outputs or {}, sha256="abc"), size)


def seen(field: Field, *values: Any) -> Observed:
    """What is counted of these values of one feature."""
    one = sampler({"x": field})
    one.offer([{"x": value} for value in values], [{} for _ in values])
    observation = one.take()
    assert observation is not None
    return observation.features["x"]


def test_numbers_are_counted_in_their_bins() -> None:
    # A bin holds its beginning and not its end, the last one both: as the reference was made.
    assert seen(TENS, 0, 9.99, 10, 20, 20.0) == Observed([2, 3])
    assert seen(TENS, -0.1, 20.1, 10**300, -(10**300), float("inf")) == Observed([0, 0], below=2, above=3)
    assert seen(TENS, True, False) == Observed([2, 0])
    assert seen(TENS, None, float("nan")) == Observed([0, 0], missing=2)
    assert seen(TENS, "5", [5], {"a": 5}) == Observed([0, 0], unseen=3)
    assert seen(TENS, np.float32(5), np.int64(15), np.bool_(True), np.array([1, 2])) == Observed([2, 1], unseen=1)


def test_a_bin_is_the_one_in_which_the_training_counted() -> None:
    edges = [0.0, 0.1, 0.2, 0.3, 1.0]
    values = [round(number * 0.01, 2) for number in range(101)]
    places = np.searchsorted(np.asarray(edges[1:-1]), np.asarray(values), side="right")
    assert seen(Numbers(edges, [1] * 4), *values).counts == np.bincount(places, minlength=4).tolist()


def test_of_texts_the_length_is_counted() -> None:
    field = Numbers([0.0, 10.0, 20.0], [1, 1], of="length")
    assert seen(field, "", "short", "x" * 10, "x" * 21, None, 5, [1, 2]) == Observed(
        [3, 1], above=1, unseen=1, missing=1
    )


def test_categories_are_counted_by_their_text() -> None:
    assert seen(COLOURS, "red", "red", "blue", "", None) == Observed([2, 0], unseen=2, missing=1)
    assert seen(Categories({"0": 1, "1": 1}), 0, 1, 1.0, True, False, 2) == Observed([2, 3], unseen=1)
    assert seen(Categories({"false": 1, "true": 1}), True, False, 1) == Observed([1, 1], unseen=1)
    assert seen(Categories({"False": 1, "True": 1}), True, False) == Observed([1, 1])
    assert seen(Categories({"1.5": 1}), 1.5, 2.5) == Observed([1], unseen=1)
    assert seen(COLOURS, ["red"], {"red": 1}, 10**10_000, 1e308, float("nan")) == Observed([0, 0], unseen=5)


def test_fields_may_be_nested_or_have_dots_in_their_names() -> None:
    one = sampler({}, {"chance.high": TENS, "a.b": TENS, "deep.er.still": TENS})
    one.offer(
        [{}, {}, {}],
        [{"chance": {"high": 5}, "a.b": 15}, {"chance": 5, "a": {"b": 15}}, {"deep": {"er": {"still": 30}}}],
    )
    observation = one.take()
    assert observation is not None
    assert observation.outputs == {
        "chance.high": Observed([1, 0], missing=2),
        "a.b": Observed([0, 2], missing=1),
        "deep.er.still": Observed([0, 0], above=1, missing=2),
    }


def test_a_row_that_failed_has_features_and_no_output() -> None:
    one = sampler({"x": TENS}, {"y": TENS})
    one.offer([{"x": 5}, {"x": 15}], [Failure("model_error", "It failed."), {"y": 5}])
    observation = one.take()
    assert observation is not None
    assert observation.features == {"x": Observed([1, 1])}
    assert observation.outputs == {"y": Observed([1, 0])}
    assert observation.rows == observation.passed == 2


def test_what_was_taken_begins_anew() -> None:
    one = sampler({"x": TENS})
    assert one.take() is None
    one.offer([{"x": 5}], [{}])
    first = one.take()
    one.offer([{"x": 15}, {"x": 15}], [{}, {}])
    one.count()
    one.offer([{"x": 25}], [{}])
    second = one.take()
    assert first is not None
    assert second is not None
    assert (first.model, first.version, first.reference_sha256) == ("doubler", "1.0.0", "abc")
    assert first.features == {"x": Observed([1, 0])}
    assert second.features == {"x": Observed([0, 2], above=1)}
    assert first.since <= first.until == second.since <= second.until
    assert one.take() is None


def test_at_most_as_many_rows_as_agreed_are_looked_at_and_all_are_counted_as_passed() -> None:
    one = sampler({"x": TENS}, size=50)
    for size in (1, 30, 5000, 1, 1, 200):
        one.offer([{"x": 5}] * size, [{}] * size)
    observation = one.take()
    assert observation is not None
    assert observation.passed == 5233
    assert 20 < observation.rows <= 50
    assert observation.features["x"].counts == [observation.rows, 0]


def test_few_rows_are_all_looked_at_after_a_busy_second_too() -> None:
    one = sampler({"x": TENS}, size=50)
    one.offer([{"x": 5}] * 5000, [{}] * 5000)
    one.take()
    one.take()
    one.offer([{"x": 5}] * 50, [{}] * 50)
    observation = one.take()
    assert observation is not None
    assert observation.rows == observation.passed == 50


@pytest.mark.parametrize("batches", [[1000], [1] * 1000, [256, 1, 1, 500, 3, 239], [20, 980], [10] * 100])
def test_each_row_has_the_same_chance_whatever_batch_it_came_in(batches: list[int]) -> None:
    RANDOM.seed(7)
    field = Numbers([float(edge) for edge in range(0, 1001, 100)], [1] * 10)
    one = sampler({"x": field}, size=20)
    for _ in range(500):
        number = 0
        for size in batches:
            one.offer([{"x": number + place} for place in range(size)], [{}] * size)
            number += size
        one.count()
    observation = one.take()
    assert observation is not None
    counts = observation.features["x"].counts
    assert 9_800 <= sum(counts) <= 500 * 20
    # 1000 each; the deviation of chance is 30.
    assert all(850 < count < 1150 for count in counts), counts


def test_many_threads_lose_no_row() -> None:
    one = sampler({"x": TENS}, size=10)
    observations: list[Observation | None] = []
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def offer() -> None:
            for _ in range(300):
                one.offer([{"x": 5}] * 7, [{}] * 7)

        threads = [threading.Thread(target=offer) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            one.count()
            observations.append(one.take())
        observations.append(one.take())
    finally:
        sys.setswitchinterval(switching)
    taken = [each for each in observations if each is not None]
    assert sum(each.passed for each in taken) == 4 * 300 * 7
    for each in taken:
        assert sum(each.features["x"].counts) == each.rows <= each.passed


def test_an_answer_that_is_no_object_is_not_counted() -> None:
    one = sampler({"x": TENS}, {"y": TENS})
    answers: Any = [["no", "object"], {"y": 5}]
    one.offer([{"x": 5}, {"x": 5}], answers)
    observation = one.take()
    assert observation is not None
    assert (observation.rows, observation.passed) == (1, 2)
    assert (observation.features["x"].counts, observation.outputs["y"].counts) == ([1, 0], [1, 0])


def reference_of(folder: Path, content: Any = None) -> Path:
    reference = {"rows": 2, "features": {"x": {"kind": "numeric", "edges": [0, 10, 20], "counts": [1, 1]}},
                 "outputs": {"y": {"kind": "numeric", "edges": [0, 20, 40], "counts": [1, 1]}}}  # fmt: skip
    (folder / "reference.json").write_text(json.dumps(reference if content is None else content))
    return folder


def observed_engine(folder: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[Engine, Observer]:
    observer = Observer(200)
    package = load_package(folder)
    return Engine(Registry([package]), load=lambda _: Model(answer), watch=observer.watch), observer


def double(row: dict[str, Any]) -> dict[str, Any]:
    return {"y": row["x"] * 2}


def test_an_engine_tells_of_what_the_model_took_and_gave(make_package: MakePackage) -> None:
    folder = make_package(
        preprocessing="def preprocess(row):\n    return {'x': row['raw'] + 10}\n",
        more="[[examples]]\ninput = { raw = 1 }\noutput = { y = 22 }",
    )
    engine, observer = observed_engine(reference_of(folder), double)
    engine.warm("doubler")
    package = engine.registry.get("doubler")
    assert observer.take() == [], "warming is no call that somebody asked for"
    engine.predict(package, [{"raw": 1}, {"raw": -5}, {"raw": "x"}], "input")
    engine.predict(package, [{"x": 3}, {"x": "no"}, {"x": 100}], "features")
    engine.predict(package, [{"x": 3}], "features", rehearsal=True)
    (observation,) = observer.take()
    assert observation.passed == observation.rows == 4
    assert observation.features == {"x": Observed([2, 1], above=1)}
    assert observation.outputs == {"y": Observed([2, 1], above=1)}
    assert observer.take() == []


def test_a_batch_larger_than_the_model_takes_is_seen_once(make_package: MakePackage) -> None:
    engine, observer = observed_engine(reference_of(make_package(max_batch=4)), double)
    engine.predict(engine.registry.get("doubler"), [{"x": number} for number in range(10)], "features")
    (observation,) = observer.take()
    assert observation.passed == 10


def test_without_a_reference_nothing_is_seen_and_with_a_broken_one_the_model_works(make_package: MakePackage) -> None:
    engine, observer = observed_engine(make_package(), double)
    assert engine.predict(engine.registry.get("doubler"), [{"x": 1}], "features") == [{"y": 2}]
    assert observer.take() == []
    broken = reference_of(make_package("other"), {"rows": "many"})
    engine, observer = observed_engine(broken, double)
    with capture_logs() as lines:
        assert engine.predict(engine.registry.get("doubler"), [{"x": 1}], "features") == [{"y": 2}]
    assert "reference_broken" in [line["event"] for line in lines]
    assert observer.take() == []


def test_a_model_that_is_let_go_is_forgotten(make_package: MakePackage) -> None:
    engine, observer = observed_engine(reference_of(make_package()), double)
    engine.predict(engine.registry.get("doubler"), [{"x": 1}], "features")
    engine.keep_only([])
    assert observer.take() == []


def test_a_process_observes_when_monitoring_is_told(make_package: MakePackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "observations", list)
    assert observe(InferenceSettings()) is unwatched
    assert observe(InferenceSettings(monitoring_url="http://127.0.0.1:8003", observed_rows_per_s=0)) is unwatched
    assert shipping.observations() == []
    watch = observe(InferenceSettings(monitoring_url="http://127.0.0.1:8003"))
    package = load_package(reference_of(make_package()))
    offer = watch(package)
    assert offer is not None
    offer([{"x": 5}], [{"y": 10}])
    (observation,) = shipping.observations()
    assert Counter(observation.features["x"].counts) == {0: 1, 1: 1}
