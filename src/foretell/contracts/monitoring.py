"""What services tell the monitoring service.

Log lines travel as they were written: `POST /logs` with `application/x-ndjson`, one structured line each
(`kit/logs.py`). A *heartbeat* (`POST /heartbeats`) says every few seconds how one instance is, with a snapshot of all
its metrics and what it has seen of its models' rows since the last one. Whoever sends none for `SILENT_AFTER_S` is
missing; whoever says goodbye has stopped. `kit/shipping.py` sends both.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from foretell.kit import heartbeats
from foretell.kit.heartbeats import HEARTBEAT_EVERY_S as HEARTBEAT_EVERY_S
from foretell.kit.metrics import Family as Family
from foretell.kit.metrics import MetricKind as MetricKind
from foretell.kit.metrics import Series as Series
from foretell.kit.posting import NDJSON as NDJSON

#: After how long without a heartbeat an instance is missing.
SILENT_AFTER_S = 3 * HEARTBEAT_EVERY_S

Aware = Annotated[datetime, Meta(tz=True)]


class Observed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one instance saw of one feature or output, counted in the bins of the model's `reference.json`.

    Values themselves are never sent. Numbers: `counts` by bin, `below` and `above` the edges. Categories: `counts` in
    the order of the reference's. `unseen`: categories that it does not have, and what is no number where numbers are.
    `missing`: absent or null.
    """

    counts: list[int]
    below: int = 0
    above: int = 0
    unseen: int = 0
    missing: int = 0


class Observation(msgspec.Struct, frozen=True):
    """Rows that one instance sampled from what passed by since its last heartbeat, for one model version.

    `reference_sha256` says which reference's bins these are; `passed` counts all rows, sampled or not.
    """

    model: str
    version: str
    reference_sha256: str
    since: Aware
    until: Aware
    rows: int
    passed: int
    features: dict[str, Observed]
    outputs: dict[str, Observed]


class Heartbeat(heartbeats.Heartbeat, frozen=True, omit_defaults=True):
    """How one instance is, as the monitoring service reads it; the kit, which sends it, knows nothing of models."""

    started_at: Aware
    at: Aware
    observations: list[Observation] = msgspec.field(default_factory=list)


decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
