"""End predictions: the first ending counts, and it alone moves credits."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from foretell.contracts.messages import Finished
from foretell.domain.predictions.store import Ending, Store
from foretell.kit.clock import now


async def settle(store: Store, endings: Sequence[Ending]) -> list[Finished]:
    """Settle a batch in one transaction and say what it ended; endings that came too late are passed over.

    An ending repeated in the batch counts once. Raises `Unavailable`; then nothing was settled, or all of it was and
    a repetition will change nothing.
    """
    first: dict[UUID, Ending] = {}
    for ending in endings:
        first.setdefault(ending.id, ending)
    finished_at = now()
    settled = await store.settle(list(first.values()), finished_at)
    return [
        Finished(
            id=ending.id,
            status="succeeded" if ending.error is None else "failed",
            finished_at=finished_at,
            output=msgspec.UNSET if ending.output is None else msgspec.Raw(ending.output),
            error=ending.error,
            worker_id=ending.worker_id,
            started_at=ending.started_at,
            published_at=ending.published_at,
        )
        for ending in first.values()
        if ending.id in settled
    ]
