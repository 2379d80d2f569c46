"""Accept predictions: hold the price and insert the row, exactly once per idempotency key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from foretell.contracts.messages import Status
from foretell.domain.errors import IdempotencyKeyInFlight, IdempotencyKeyReused, NotEnoughCredits, NotFound
from foretell.domain.predictions.store import Earlier, Store, Submission
from foretell.kit.errors import ForetellError, MayBeDone, Overloaded, Unavailable

# Every pass accepts or refuses at least one submission of each user, unless another process spends the same credits.
_MOST_PASSES = 20


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to an accepted submission: a new prediction, or the existing one with the same key."""

    id: UUID
    status: Status
    replayed: bool = False


async def accept(store: Store, submissions: Sequence[Submission]) -> list[Receipt | ForetellError]:
    """Accept a batch; one outcome per submission, in order: a receipt, or the error for that caller alone.

    Errors: `NotEnoughCredits`, `IdempotencyKeyReused`, `IdempotencyKeyInFlight`, `NotFound` for an unknown user,
    `Overloaded` when too many requests spend the same credits at once, `Unavailable` when the database is unreachable,
    and `MayBeDone` when it is unknown whether the database accepted.
    """
    outcomes: dict[UUID, Receipt | ForetellError] = {}
    first_with_key: dict[tuple[UUID, str], Submission] = {}
    repeated: list[Submission] = []
    pending: list[Submission] = []
    for submission in submissions:
        if submission.idempotency_key is not None:
            key = (submission.user_id, submission.idempotency_key)
            if first_with_key.setdefault(key, submission) is not submission:
                repeated.append(submission)
                continue
        pending.append(submission)
    left_out: ForetellError | None = None
    try:
        await _accept_in_passes(store, pending, outcomes)
    except Unavailable as error:
        # Submissions that earlier passes accepted stay accepted.
        left_out = error
    for submission in pending:
        # Left over without an error: other requests are using the same key or the same credits right now.
        busy = IdempotencyKeyInFlight() if submission.idempotency_key else Overloaded()
        outcomes.setdefault(submission.id, left_out or busy)
    await _repeat(store, repeated, first_with_key, outcomes)
    return [outcomes[submission.id] for submission in submissions]


async def _accept_in_passes(
    store: Store, submissions: Sequence[Submission], outcomes: dict[UUID, Receipt | ForetellError]
) -> None:
    pending = list(submissions)
    for _ in range(_MOST_PASSES):
        accepted = await store.accept(pending)
        for submission in pending:
            if submission.id in accepted:
                outcomes[submission.id] = Receipt(submission.id, "queued")
        refused = [submission for submission in pending if submission.id not in accepted]
        pending = await _refuse(store, refused, outcomes) if refused else []
        if not pending:
            return


async def _explain(
    store: Store, refused: Sequence[Submission]
) -> tuple[Mapping[tuple[UUID, str], Earlier], Mapping[UUID, int]]:
    try:
        return await store.explain(refused)
    except MayBeDone as error:
        # `explain` only reads, so the outcome is not unknown.
        raise Unavailable(part="database") from error


async def _refuse(
    store: Store, refused: Sequence[Submission], outcomes: dict[UUID, Receipt | ForetellError]
) -> list[Submission]:
    """Find the outcome of submissions that were left out; returns those for another pass.

    These are submissions that the user can pay, but that came after a too expensive one in the batch.
    """
    earlier, available = await _explain(store, refused)
    again = []
    for submission in refused:
        known = earlier.get((submission.user_id, submission.idempotency_key)) if submission.idempotency_key else None
        credits = available.get(submission.user_id)
        if known is not None:
            outcomes[submission.id] = _replay(submission, known)
        elif credits is None:
            outcomes[submission.id] = NotFound(what="user")
        elif submission.price_credits > credits:
            outcomes[submission.id] = NotEnoughCredits(price=submission.price_credits, available=credits)
        else:
            again.append(submission)
    return again


def _replay(submission: Submission, known: Earlier) -> Receipt | ForetellError:
    if submission.request_hash != known.request_hash:
        return IdempotencyKeyReused()
    return Receipt(known.id, known.status, replayed=True)


async def _repeat(
    store: Store,
    repeated: Sequence[Submission],
    first_with_key: Mapping[tuple[UUID, str], Submission],
    outcomes: dict[UUID, Receipt | ForetellError],
) -> None:
    """Find the outcomes of submissions whose key occurs earlier in the same batch."""
    others: list[Submission] = []
    for submission in repeated:
        assert submission.idempotency_key is not None
        first = first_with_key[submission.user_id, submission.idempotency_key]
        outcome = outcomes[first.id]
        if submission.request_hash != first.request_hash:
            others.append(submission)
        elif isinstance(outcome, Receipt):
            outcomes[submission.id] = Receipt(outcome.id, outcome.status, replayed=True)
        else:
            outcomes[submission.id] = outcome
    if not others:
        return
    # Not compared with the first one: if that was refused, the key may belong to this request.
    try:
        earlier, _ = await _explain(store, others)
    except Unavailable as error:
        outcomes.update((submission.id, error) for submission in others)
        return
    for submission in others:
        known = earlier.get((submission.user_id, submission.idempotency_key or ""))
        outcomes[submission.id] = IdempotencyKeyInFlight() if known is None else _replay(submission, known)
