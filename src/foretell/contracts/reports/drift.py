"""Drift: differences between the live inputs and outputs of models and their training data."""

from datetime import datetime
from typing import Literal

import msgspec

DriftStatus = Literal["stable", "shifting", "drifted", "not_enough_data", "no_reference"]


class Distribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """Shares of the rows by bin, in the reference and in the live data."""

    reference: list[float]
    seen: list[float]
    edges: list[float] | None = None
    categories: list[str] | None = None


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the `reasons`, for programs and translations.

    `share` and `reference_share` are fractions of the rows. `distribution` (it has moved) and `usual` (its PSI is
    large, but single days of the training data have as much) have none: see `psi`, `psi_by_chance` and `usual_psi`.
    """

    what: Literal["missing", "present", "unknown_category", "not_a_number", "out_of_range", "distribution", "usual"]
    share: float | None = None
    reference_share: float | None = None


class FieldFinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result for one field in one window. Shares are relative to `rows`, the rows that could have the field."""

    name: str
    part: Literal["feature", "output"]
    kind: Literal["numeric", "categorical"]
    status: DriftStatus
    #: For people: the changes, as sentences.
    reasons: list[str]
    rows: int
    rows_needed: int
    missing_share: float | None = None
    out_of_range_share: float | None = None
    unseen_share: float | None = None
    psi: float | None = None
    #: The value that the index rarely exceeds by chance.
    psi_by_chance: float | None = None
    #: The value that it rarely exceeds in as many days of the training data; None if the reference has none.
    usual_psi: float | None = None
    test: Literal["kolmogorov_smirnov", "chi_squared"] | None = None
    statistic: float | None = None
    p_value: float | None = None
    #: The test is significant below this p value.
    p_needed: float | None = None
    distribution: Distribution | None = None
    #: The same as `reasons`, in the same order.
    changes: list[Change] = []

    @property
    def drifted(self) -> bool:
        """Whether it has drifted."""
        return self.status == "drifted"


class FieldSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The current status of one field: by the longest window with enough rows."""

    name: str
    part: str
    status: DriftStatus
    drifted: bool
    reasons: list[str]
    window_s: float
    psi: float | None = None
    p_value: float | None = None


class WindowFinding(msgspec.Struct, frozen=True):
    """The result in one window. `rows` of the `passed` rows were sampled."""

    window_s: float
    status: DriftStatus
    rows: int
    passed: int
    since: datetime | None
    until: datetime | None
    fields: list[FieldFinding]


class ReferenceAbout(msgspec.Struct, frozen=True):
    """The reference of the comparison."""

    rows: int
    sha256: str


class NotCompared(msgspec.Struct, frozen=True):
    """A feature or output that is not compared, and the reason."""

    name: str
    part: Literal["feature", "output"]
    reason: str


class VersionFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one model version."""

    model: str
    version: str
    computed_at: datetime
    status: DriftStatus
    #: Why there is no usable reference.
    reason: str | None = None
    #: The same for programs: the package has none, or one that can't be used.
    reason_code: Literal["missing", "broken"] | None = None
    reference: ReferenceAbout | None = None
    findings: list[FieldSummary] = []
    windows: list[WindowFinding] = []
    #: Inputs and outputs of the model that are not compared.
    not_compared: list[NotCompared] = []


class DriftReport(msgspec.Struct, frozen=True):
    """The answer of `GET /reports/drift`. Windows are named by their length in seconds."""

    windows_s: list[float]
    versions: list[VersionFinding]
