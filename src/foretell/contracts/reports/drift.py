"""How far what models are asked, and what they answer, is from what they were trained on."""

from datetime import datetime
from typing import Literal

import msgspec

DriftStatus = Literal["stable", "shifting", "drifted", "not_enough_data", "no_reference"]


class Distribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """Shares of the rows, bin by bin: of the reference, and of what was seen."""

    reference: list[float]
    seen: list[float]
    edges: list[float] | None = None
    categories: list[str] | None = None


class FieldFinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of one field in one window. Shares are of `rows`, those in which the field could be."""

    name: str
    part: Literal["feature", "output"]
    kind: Literal["numeric", "categorical"]
    status: DriftStatus
    #: For people: what has changed, sentence by sentence.
    reasons: list[str]
    rows: int
    rows_needed: int
    missing_share: float | None = None
    out_of_range_share: float | None = None
    unseen_share: float | None = None
    psi: float | None = None
    #: What the index would hardly exceed by chance.
    psi_by_chance: float | None = None
    #: What it would hardly exceed in as many days of the training data; None when the reference does not say.
    usual_psi: float | None = None
    test: Literal["kolmogorov_smirnov", "chi_squared"] | None = None
    statistic: float | None = None
    p_value: float | None = None
    #: Below which p value the test counts.
    p_needed: float | None = None
    distribution: Distribution | None = None

    @property
    def drifted(self) -> bool:
        """Whether it has drifted."""
        return self.status == "drifted"


class FieldSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field, as it is now: by the longest window that has enough rows."""

    name: str
    part: str
    status: DriftStatus
    drifted: bool
    reasons: list[str]
    window_s: float
    psi: float | None = None
    p_value: float | None = None


class WindowFinding(msgspec.Struct, frozen=True):
    """What was found in one window. `rows` were looked at of the `passed` that there were."""

    window_s: float
    status: DriftStatus
    rows: int
    passed: int
    since: datetime | None
    until: datetime | None
    fields: list[FieldFinding]


class ReferenceAbout(msgspec.Struct, frozen=True):
    """Which reference it was compared with."""

    rows: int
    sha256: str


class NotCompared(msgspec.Struct, frozen=True):
    """A feature or output that the look for drift passes over, and why."""

    name: str
    part: Literal["feature", "output"]
    reason: str


class VersionFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one model version."""

    model: str
    version: str
    computed_at: datetime
    status: DriftStatus
    #: Why there is no reference that it could be compared with.
    reason: str | None = None
    reference: ReferenceAbout | None = None
    findings: list[FieldSummary] = []
    windows: list[WindowFinding] = []
    #: What the model takes or answers and this look passes over.
    not_compared: list[NotCompared] = []


class DriftReport(msgspec.Struct, frozen=True):
    """The answer of `GET /reports/drift`. Windows are named by their length in seconds."""

    windows_s: list[float]
    versions: list[VersionFinding]
