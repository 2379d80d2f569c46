from uuid import uuid4

from prometheus_client import REGISTRY
from tests.predictions import submission

from foretell.domain.errors import NotEnoughCredits
from foretell.domain.predictions.intake import Receipt
from foretell.services.app.measures import count_accepted


def _accepted(version: str) -> float:
    labels = {"model": "counted", "version": version}
    return REGISTRY.get_sample_value("foretell_predictions_accepted_total", labels) or 0.0


def test_only_what_was_accepted_is_counted_and_only_once() -> None:
    versions = ["1", "1", "2", "1", "2"]
    batch = [submission(uuid4(), model="counted", version=version) for version in versions]
    outcomes = [
        Receipt(batch[0].id, "queued"),
        Receipt(batch[1].id, "queued"),
        Receipt(batch[2].id, "queued"),
        NotEnoughCredits(price=1, available=0),
        Receipt(uuid4(), "queued", replayed=True),
    ]
    count_accepted(batch, outcomes)
    assert (_accepted("1"), _accepted("2")) == (2, 1)
    count_accepted([], [])
    assert (_accepted("1"), _accepted("2")) == (2, 1)
