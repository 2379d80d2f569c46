"""What the app measures."""

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
    """Count what became of a batch: once for all that are alike, since batches are large when time is short."""
    tally = Tally(
        (submission.model, submission.version)
        for submission, outcome in zip(submissions, outcomes, strict=True)
        if isinstance(outcome, Receipt) and not outcome.replayed
    )
    for labels, count in tally.items():
        ACCEPTED.labels(*labels).inc(count)
