"""Replaced secrets: each is used for signing for another day, so that the receiver has time to change.

They are stored in one column, the newest first: a JSON array of pairs, the secret in base64 and its end.
"""

import base64
import json
from datetime import datetime, timedelta

from foretell.domain.errors import TooManyRotations

#: How long a replaced secret is still used for signing.
ROTATION = timedelta(hours=24)
#: How many replaced secrets may be in use: each makes every signature header longer.
MAX_PREVIOUS = 5


def still_signing(previous: str | None, at: datetime) -> list[bytes]:
    """The replaced secrets that are still in use, the newest first."""
    return [secret for secret, until in _read(previous) if until > at]


def replaced(secret: bytes | None, previous: str | None, at: datetime) -> str | None:
    """The new value of the column when `secret` is replaced; None if there is nothing to store.

    Raises `TooManyRotations` at the limit: dropping one would break its receiver.
    """
    kept = [(each, until) for each, until in _read(previous) if until > at]
    if len(kept) >= MAX_PREVIOUS:
        until = kept[-1][1]
        free_at = until.isoformat(timespec="seconds")
        raise TooManyRotations(limit=MAX_PREVIOUS, free_at=free_at, retry_after_s=(until - at).total_seconds())
    if secret is not None:
        kept.insert(0, (secret, at + ROTATION))
    return json.dumps([(base64.b64encode(each).decode(), until.isoformat()) for each, until in kept]) if kept else None


def _read(previous: str | None) -> list[tuple[bytes, datetime]]:
    return [(base64.b64decode(secret), datetime.fromisoformat(until)) for secret, until in json.loads(previous or "[]")]
