"""Trains the model of this package from public data: `python -m foretell.models.sentiment.train`.

Turning 9,500 texts into vectors takes one core four to eight minutes; it is done once and kept in the user's cache
folder. The rest takes a minute. Writes weights.json, report.md, report.json and reference.json, and into model.toml
what follows from them. Fails, and writes nothing, when the served code differs from the trained model. With `--check`
it writes nothing either way and fails when the committed model or reports are not what the training gives; the vectors
of another kind of machine may differ in their last digits, and then it fails by some thousandths.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from threadpoolctl import threadpool_limits

from foretell.contracts.messages import Failure
from foretell.inference.engine import Engine
from foretell.inference.package import MANIFEST, ModelPackage, load_package
from foretell.inference.python_class import schemas
from foretell.inference.registry import Registry
from foretell.models.sentiment import report as reports
from foretell.models.sentiment.data import Tweet, read_tweets, split
from foretell.models.sentiment.embedding import MAX_CHARACTERS, NotInstalled
from foretell.models.sentiment.model import LABELS, WEIGHTS, SentimentModel
from foretell.models.sentiment.vectors import default_cache, embed_all

FOLDER = Path(__file__).parent
PHRASES = "phrases_ru.json"
#: Inverse of the strength that holds the coefficients small.
C = 3.0
#: The served code may differ from the trained model by this much, on any tweet of the hold-out.
PARITY_LIMIT = 1e-5
#: The committed model may differ from a new training by this much, given the same vectors.
REPRODUCTION_LIMIT = 1e-6
#: So many answers of the hold-out stand in the report, to compare with where a whole training takes too long.
SAMPLE_ROWS = 32

WRITTEN = (
    WEIGHTS,
    "report.json",
    "report.md",
    "reference.json",
    "features.schema.json",
    "output.schema.json",
    MANIFEST,
)


class GateFailed(Exception):
    """The model must not be used; the message says why."""


@dataclass(frozen=True)
class Trained:
    """What a training gives: the artifact and the reports."""

    artifact: bytes
    report: dict[str, Any]
    reference: dict[str, Any]
    #: The vectors of the hold-out, float32 (rows, 384).
    hold_out: Any


def train(cache: Path | None) -> Trained:
    """Read the data, embed, train, compare and report. Raises `GateFailed`, `NotInstalled`."""
    say("reading the tweets ...")
    tweets = read_tweets()
    training, held_out = split(tweets.tweets)
    phrases = json.loads((FOLDER / PHRASES).read_text(encoding="utf-8"))["phrases"]
    say(f"embedding {len(training):,} tweets to train on, {len(held_out):,} held out and {len(phrases)} phrases ...")
    parts = [[tweet.text for tweet in training], [tweet.text for tweet in held_out], [row["text"] for row in phrases]]
    vectors = embed_all([text for part in parts for text in part], cache, progress=_say_progress)
    learned, unseen, tried = np.split(vectors, np.cumsum([len(part) for part in parts])[:-1])
    say("training ...")
    model = fit(learned, [tweet.label for tweet in training])
    artifact = export(model)
    probabilities = predict(artifact, unseen)
    apart = check_parity(artifact, model, unseen)
    say(f"at most {apart:.1e} apart on the hold-out; training a TF-IDF model to compare with ...")
    labels = [tweet.label for tweet in held_out]
    words = _fit_words(parts[0], [tweet.label for tweet in training])
    report: dict[str, Any] = {
        "model": "sentiment",
        "version": "1.0.0",
        "c": C,
        "max_characters": MAX_CHARACTERS,
        "data": reports.summary(tweets, training, held_out),
        "hold_out": reports.quality(labels, probabilities),
        "tf_idf": reports.quality(labels, words(parts[1])),
        "learning_curve": _learning_curve(learned, [tweet.label for tweet in training], unseen, labels),
        "by_agreement": reports.by_agreement(held_out, probabilities),
        "russian": reports.phrases(
            phrases, predict(artifact, tried), lambda texts: [LABELS[place] for place in words(texts).argmax(axis=1)]
        ),
        "parity_limit": PARITY_LIMIT,
        "sample": sample(held_out[:SAMPLE_ROWS], probabilities),
    }
    check_useful(report["hold_out"])
    return Trained(artifact, report, reports.reference(parts[1], probabilities), unseen)


def fit(vectors: Any, labels: Sequence[str]) -> LogisticRegression:
    """The regression, float64. It has one best solution, which Newton's method finds to the last places."""
    with threadpool_limits(1):
        model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8, max_iter=100)
        return model.fit(np.asarray(vectors, dtype=np.float64), labels)


def export(model: LogisticRegression) -> bytes:
    """The content of weights.json."""
    if tuple(model.classes_) != LABELS:
        raise GateFailed(f"The model knows the labels {list(model.classes_)}, not {list(LABELS)}.")
    rows = ",\n  ".join(json.dumps([_short(value) for value in row]) for row in model.coef_)
    intercepts = json.dumps([_short(value) for value in model.intercept_])
    labels = json.dumps(LABELS)
    return f'{{\n "labels": {labels},\n "intercepts": {intercepts},\n "coefficients": [\n  {rows}\n ]\n}}\n'.encode()


def predict(artifact: bytes, vectors: Any) -> Any:
    """The probabilities that the served code gives for vectors, float64 (rows, 3), not rounded."""
    model = SentimentModel()
    model.use(artifact)
    return np.array([model.probabilities(vector) for vector in vectors])


def check_parity(artifact: bytes, model: LogisticRegression, vectors: Any) -> float:
    """How far the served code is from the trained model, at most. Raises `GateFailed`."""
    apart = float(np.max(np.abs(predict(artifact, vectors) - model.predict_proba(vectors.astype(np.float64)))))
    if not apart <= PARITY_LIMIT:
        raise GateFailed(
            f"Served code and scikit-learn are {apart:.2g} apart on the hold-out; at most {PARITY_LIMIT:g} is allowed."
        )
    return apart


def check_useful(quality: dict[str, Any]) -> None:
    """Raises `GateFailed` for a model that is no better than always saying the most frequent label."""
    most_frequent = max(row["tweets"] for row in quality["by_label"]) / quality["tweets"]
    if not (quality["accuracy"] > most_frequent and quality["balanced_accuracy"] > 1 / len(LABELS)):
        raise GateFailed(f"An accuracy of {quality['accuracy']:.3f} is no better than guessing.")


def sample(tweets: Sequence[Tweet], probabilities: Any) -> list[dict[str, Any]]:
    """Some answers, by the row of the corpus: who has the corpus can compare, and no tweet stands here."""
    return [
        {"row": tweet.row, "labelled": tweet.label, "probabilities": [round(float(value), 4) for value in row]}
        for tweet, row in zip(tweets, probabilities, strict=False)
    ]


def write(trained: Trained, folder: Path) -> ModelPackage:
    """Put the results of a training into `folder`, which holds the manifest. Raises `GateFailed`."""
    (folder / WEIGHTS).write_bytes(trained.artifact)
    (folder / "report.json").write_text(_as_json(trained.report), encoding="utf-8")
    (folder / "report.md").write_text(reports.as_markdown(trained.report), encoding="utf-8")
    (folder / "reference.json").write_text(_as_json(trained.reference), encoding="utf-8")
    for stage, schema in schemas(SentimentModel).items():
        (folder / f"{stage}.schema.json").write_text(json.dumps(schema, ensure_ascii=False, indent=2) + "\n", "utf-8")
    manifest = folder / MANIFEST
    text = manifest.read_text(encoding="utf-8")
    digest = hashlib.sha256(trained.artifact).hexdigest()
    text, count = re.subn(r'(?m)^sha256 = ".*"$', f'sha256 = "{digest}"', text)
    if count != 1:
        raise GateFailed(f"model.toml has {count} lines that begin with sha256; it needs one.")
    manifest.write_text(text, encoding="utf-8")
    # The outputs of the examples come from the engine itself: what users will see.
    outputs = iter(_example_outputs(load_package(folder)))
    text = re.sub(r"(?m)^output = \{.*\}$", lambda _: f"output = {next(outputs)}", text)
    manifest.write_text(text, encoding="utf-8")
    return load_package(folder)


def differences(trained: Trained, committed: ModelPackage) -> list[str]:
    """Where the committed package is not what this training gives; empty when it is."""
    found = []
    artifact = committed.artifact_path.read_bytes()
    if hashlib.sha256(artifact).hexdigest() != committed.manifest.sha256:
        found.append(f"{WEIGHTS} is not the file whose sha256 stands in model.toml")
    apart = float(np.max(np.abs(predict(artifact, trained.hold_out) - predict(trained.artifact, trained.hold_out))))
    if not apart <= REPRODUCTION_LIMIT:
        found.append(f"{WEIGHTS} predicts up to {apart:.2g} otherwise; at most {REPRODUCTION_LIMIT:g} is allowed")
    for name, content in (("report.json", trained.report), ("reference.json", trained.reference)):
        if not _alike(json.loads((committed.path / name).read_text(encoding="utf-8")), content):
            found.append(f"{name} holds other numbers")
    return found


def say(line: str) -> None:
    """One line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write, or with `--check` compare. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m foretell.models.sentiment.train", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="the file of vectors (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="compute every vector anew and keep none")
    options = parser.parse_args(arguments)
    try:
        trained = train(None if options.fresh else options.cache)
        if options.check:
            found = differences(trained, load_package(FOLDER))
            for line in found:
                say(f"differs: {line}")
            if not found:
                same = trained.artifact == (FOLDER / WEIGHTS).read_bytes()
                say("the committed model is what this training gives" + (", byte for byte" if same else ""))
            return int(bool(found))
        _publish(trained)
    except (GateFailed, NotInstalled, RuntimeError) as error:
        say(f"refused: {error}")
        return 1
    say(f"written to {FOLDER}: {trained.report['hold_out']['accuracy']:.1%} of the hold-out are right")
    return 0


def _publish(trained: Trained) -> None:
    """Write beside the package first, so that a gate that fails leaves the package as it was."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / FOLDER.name
        shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        write(trained, folder)
        for name in WRITTEN:
            shutil.copyfile(folder / name, FOLDER / name)


def _learning_curve(learned: Any, known: Sequence[str], unseen: Any, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The quality of models that are trained on a quarter, a half and all of the training tweets."""
    curve = []
    for parts in (4, 2, 1):
        # Each label alike, as in the whole: the tweets are in random order.
        places = [place for label in LABELS for place in np.flatnonzero(np.asarray(known) == label)[::parts]]
        model = fit(learned[places], [known[place] for place in places])
        found = reports.quality(labels, model.predict_proba(unseen.astype(np.float64)))
        curve.append({"trained_on": len(places), "accuracy": found["accuracy"], "macro_f1": found["macro_f1"]})
    return curve


def _fit_words(texts: Sequence[str], labels: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """Probabilities (texts, 3) by a logistic regression over the TF-IDF of words and of characters."""
    with threadpool_limits(1):
        model = make_pipeline(
            make_union(
                TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
                TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=3, sublinear_tf=True),
            ),
            LogisticRegression(C=C, max_iter=300),
        ).fit(texts, labels)
    predict_words: Callable[[Sequence[str]], Any] = model.predict_proba
    return predict_words


def _example_outputs(package: ModelPackage) -> list[str]:
    engine = Engine(Registry([package]))
    outputs = []
    for output in engine.predict(package, [example.features for example in package.examples], "features"):
        if isinstance(output, Failure):
            raise GateFailed(f"An example of the manifest fails: {output.message}")
        chances = ", ".join(f"{label} = {chance!r}" for label, chance in output["probabilities"].items())
        outputs.append(f'{{ label = "{output["label"]}", probabilities = {{ {chances} }} }}')
    return outputs


def _say_progress(done: int, of: int) -> None:
    say(f"  {done:,} of {of:,} texts embedded")


def _short(value: float) -> float:
    return round(float(value), 9)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _alike(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same but for the last places of their numbers."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_alike(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(_alike(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, int | float) and isinstance(second, int | float):
        return abs(first - second) <= 1e-4 * max(1, abs(first))
    return bool(first == second)


if __name__ == "__main__":
    sys.exit(main())
