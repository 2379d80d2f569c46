"""End predictions: only the first ending counts and moves credits."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from foretell.contracts.messages import Finished
from foretell.domain.predictions.store import Ending, Store
from foretell.kit.clock import now


async def settle(store: Store, endings: Sequence[Ending]) -> list[Finished]:
    """Settle a batch in one transaction and return what it ended; predictions that have already ended are skipped.

    A repeated ending counts once. Raises `Unavailable`: then either nothing or the whole batch was settled, and
    it is safe to repeat the call.
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
