"""Metrics of the app."""

from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import Counter

from foretell.domain.predictions.intake import Receipt
from foretell.domain.predictions.store import Submission
from foretell.kit.errors import ForetellError

ACCEPTED = Counter(
    "foretell_predictions_accepted",
    "Predictions accepted, by model and version; repetitions not counted.",
    ["model", "version"],
)


def count_accepted(submissions: Sequence[Submission], outcomes: Sequence[Receipt | ForetellError]) -> None:
    """Count the outcomes of a batch, with one update for each kind of outcome, which costs less for large batches."""
    tally = Tally(
        (submission.model, submission.version)
        for submission, outcome in zip(submissions, outcomes, strict=True)
        if isinstance(outcome, Receipt) and not outcome.replayed
    )
    for labels, count in tally.items():
        ACCEPTED.labels(*labels).inc(count)
