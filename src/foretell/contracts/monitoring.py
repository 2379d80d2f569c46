"""Messages from services to the monitoring service.

Log lines are sent unchanged: `POST /logs` with `application/x-ndjson`, one structured line each (`kit/logs.py`). A
*heartbeat* (`POST /heartbeats`) every few seconds has the state of one instance, a snapshot of all its metrics, and the
counts of its models' rows since the last one. An instance without heartbeats for `SILENT_AFTER_S` is missing; after a
final heartbeat (`goodbye`) it has stopped. `kit/shipping.py` sends both.
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

#: An instance without a heartbeat for so long is missing.
SILENT_AFTER_S = 3 * HEARTBEAT_EVERY_S

Aware = Annotated[datetime, Meta(tz=True)]


class Observed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts of one feature or output in one instance, in the bins of the model's `reference.json`.

    Values are never sent. Numbers: `counts` by bin, `below` and `above` the edges. Categories: `counts` in
    the order of the reference. `unseen`: categories that are not in the reference, and other types in place of numbers.
    `missing`: absent or null.
    """

    counts: list[int]
    below: int = 0
    above: int = 0
    unseen: int = 0
    missing: int = 0


class Observation(msgspec.Struct, frozen=True):
    """Rows of one model version that one instance sampled since its last heartbeat.

    `reference_sha256` identifies the reference of the bins; `passed` counts all rows, sampled or not.
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
    """A heartbeat as the monitoring service decodes it; the kit, which sends it, has no types for observations."""

    started_at: Aware
    at: Aware
    observations: list[Observation] = msgspec.field(default_factory=list)


decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
