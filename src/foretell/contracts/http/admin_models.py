"""For operators: versions, traffic, prices and uploads of models."""

from typing import Annotated, Literal

from pydantic import Field

from foretell.contracts.http.bodies import Answer, Request, Words


class NewTraffic(Request):
    """How the requests that name no version are divided."""

    default: str | None = Field(default=None, max_length=64, description="null: the highest version")
    weights: dict[
        Annotated[str, Field(max_length=64)],
        Annotated[float, Field(ge=0, le=1_000_000, strict=True, allow_inf_nan=False)],
    ] = Field(default_factory=dict, max_length=50, description="Shares of requests, by version")
    shadow: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=20,
        description="Versions that run on the same inputs, without answer or charge",
    )


class NewPrice(Request):
    """The price of one prediction."""

    price_credits: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = Field(
        description="null: the price of settings and manifest"
    )


class TrafficRule(Answer):
    """The rule for a model in traffic.toml."""

    default: str | None
    weights: dict[str, float]
    shadow: list[str]
    price_credits: int | None


class OverseenVersion(Answer):
    """One version of a model."""

    version: str
    runtime: str
    pool: str | None
    timeout_s: float
    max_batch: int
    manifest_price: int
    weight: float | None = Field(description="Its share of requests without a version; null: none")
    shadow: bool


class OverseenModel(Answer):
    """A model with its versions."""

    name: str
    title: Words
    default_version: str
    price: int = Field(description="Present price of one prediction")
    manifest_price: int
    rule: TrafficRule
    versions: list[OverseenVersion]
    models_stamp: str = Field(description="`/health` of each service shows the stamp that it has applied")


class UnavailableModel(Answer):
    """A package that is installed and can't be used."""

    name: str
    reason: str


class OverseenModels(Answer):
    """Every model."""

    items: list[OverseenModel]
    unavailable: list[UnavailableModel]


class ModelsStamp(Answer):
    """The stamp that `/health` of every service shows once it has read everything again."""

    models_stamp: str


class VersionDid(Answer):
    """How many predictions of one version ended how, and how long those that succeeded ran."""

    version: str
    succeeded: int
    failed: int
    queued: int
    canceled: int
    mean_running_s: float | None
    p50_running_s: float | None
    p95_running_s: float | None


class ValueShare(Answer):
    """How often one value was answered, among all answers of that version."""

    label: Words
    share: float


class VersionAnswers(Answer):
    """What one version answered in one field: shares of its values, or the mean of a number."""

    version: str
    shares: list[ValueShare]
    mean: float | None


class ComparedField(Answer):
    """One field of the output, version by version."""

    field: str
    title: Words
    versions: list[VersionAnswers]


class ShadowNumber(Answer):
    """How far one number of a shadow's answers was from the one that was given: the absolute difference."""

    field: str
    mean: float | None
    p95: float | None


class ShadowDid(Answer):
    """How often a shadow version gave the same answer."""

    version: str
    shadow: str
    same: int
    different: int
    failed: int
    differences: list[ShadowNumber]


class ModelComparison(Answer):
    """Versions side by side, on the newest 20,000 predictions of the time."""

    versions: list[VersionDid]
    answers: list[ComparedField] = Field(description="Fields of the output with few values, and numbers")
    shadows: list[ShadowDid] | None = Field(description="null: the monitoring service can't be asked")


class CheckFinding(Answer):
    """One step of the check of a package."""

    step: str
    outcome: Literal["ok", "warning", "wrong"]
    detail: str


class PackageName(Answer):
    """Name and version of a package."""

    name: str
    version: str


class PackageChecked(Answer):
    """Findings of the check of a package, and whether it was installed."""

    ready: bool
    installed: bool
    reason: str | None = Field(description="Why it was not installed although it could be read")
    package: PackageName | None
    findings: list[CheckFinding]
