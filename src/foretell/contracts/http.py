"""What the app answers and takes over HTTP: the schemas of its OpenAPI page, and what a client may rely on.

Times are ISO 8601 in UTC, amounts whole credits. A list comes in pages: `next_cursor` asks for the page after.
Predictions are msgspec structs, because their output passes through as the JSON that the worker sent, unparsed.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from foretell.contracts.messages import Failure, Status


def _can_be_kept(text: str) -> str:
    # PostgreSQL stores no NUL, and nobody means one.
    if "\0" in text:
        raise ValueError("must not contain the character NUL")
    # JSON can carry half of a surrogate pair, and UTF-8 can't. Pydantic looks only where `str` has bounds of its own,
    # and those that stand after this function are none.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not contain half of a surrogate pair")
    return text


#: A text that somebody sends and that is kept. The pattern is for readers of the schema; the function says it in words.
KeptText = Annotated[str, AfterValidator(_can_be_kept), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
_PRINTABLE: JsonDict = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}
# Letters and digits of every script and . _ - @ + as far as every dialect of regular expressions can say it.
_USERNAME: JsonDict = {"pattern": r"^[^\s\u0000-\u002a\u002c\u002f\u003a-\u003f\u005b-\u005e\u0060\u007b-\u00a0]+$"}


class Request(BaseModel):
    """A body that somebody sends. A field that we do not know is refused: it would be ignored in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """A body that we send. It may get more fields later, never fewer."""

    model_config = ConfigDict(frozen=True, from_attributes=True, json_schema_serialization_defaults_required=True)


class FieldProblem(Answer):
    """What is wrong with one part of a request: `pointer` into its body, or the `parameter` or `header` by its name."""

    detail: str = Field(examples=["must be at least 0"])
    pointer: str | None = Field(default=None, description="JSON Pointer into the body", examples=["#/input/distance"])
    parameter: str | None = Field(default=None, description="Parameter of the query or the path")
    header: str | None = Field(default=None, description="Header of the request")


class Problem(BaseModel):
    """RFC 9457. `code` is stable and for programs; `detail` is for people."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(examples=["urn:problem-type:foretell:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such prediction."])
    code: str = Field(examples=["not_found"])
    instance: str | None = Field(default=None, description="Path of the request")
    outcome: Literal["not_done", "unknown"] | None = Field(
        default=None,
        description=(
            "With a status of 5xx: `not_done` when nothing of what was asked for happened, so that it can be asked for "
            "again; `unknown` when it may have happened: look first, or ask again with the same Idempotency-Key."
        ),
    )
    errors: list[FieldProblem] | None = Field(default=None, description="Each field that does not fit")


class NewUser(Request):
    """Who wants an account."""

    username: str = Field(min_length=3, max_length=64, examples=["ada"], json_schema_extra=_USERNAME)
    password: KeptText = Field(min_length=8, max_length=1024, examples=["correct horse battery staple"])


class User(Answer):
    """An account."""

    id: UUID
    username: str = Field(examples=["ada"])
    role: Literal["user", "operator"] = Field(examples=["user"])
    created_at: datetime
    language: Literal["en", "ru"] | None = Field(description="Of the page; null: as the browser says")
    theme: Literal["light", "dark"] | None = Field(description="Of the page; null: as the browser says")


class UserChange(Request):
    """How the page should be; what is not given stays."""

    language: Literal["en", "ru"] | None = None
    theme: Literal["light", "dark"] | None = None


class PasswordChange(Request):
    """The password, and the one that is to replace it."""

    old: str = Field(max_length=10_000)
    new: KeptText = Field(min_length=8, max_length=1024, examples=["correct horse battery staple"])


class AccountClosing(Request):
    """Who closes an account shows that it is theirs."""

    password: str = Field(max_length=10_000)


class Credentials(Request):
    """Who logs in."""

    username: str = Field(max_length=1000, examples=["test"])
    password: str = Field(max_length=10_000, examples=["test"])


class SessionStart(Answer):
    """Whose session this is. `csrf_token` belongs into `X-CSRF-Token` with every request that changes something."""

    user: User
    csrf_token: str


class Session(Answer):
    """One session of a browser."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    user_agent: str
    address: str = Field(description="Where it was opened from", examples=["203.0.113.7"])
    current: bool = Field(description="Whether it is the one that asks")


class Sessions(Answer):
    """The newest first."""

    items: list[Session]


class About(Answer):
    """What whoever comes here first wants to know."""

    product: Literal["Foretell"]
    version: str = Field(examples=["0.1.0"])
    environment: Literal["development", "production"]
    languages: list[Literal["en", "ru"]]
    registration_open: bool
    signup_credits: int = Field(description="What a new account gets", examples=[100])
    telegram: bool = Field(description="Whether there is a bot")
    telegram_bot: str | None = Field(description="What it is called, once it said so", examples=["foretell_bot"])


class Tokens(Answer):
    """RFC 6749: what a log-in gives. The refresh token works once and gives the next pair."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme, no secret
    expires_in: int = Field(description="Seconds until the access token ends", examples=[900])
    refresh_token: str


class NewApiKey(Request):
    """A key that is wanted."""

    name: str = Field(min_length=1, max_length=100, examples=["nightly report"], json_schema_extra=_PRINTABLE)


class ApiKey(Answer):
    """A key for programs, without the key."""

    id: UUID
    name: str = Field(examples=["nightly report"])
    prefix: str = Field(description="How the key begins", examples=["ftl_3kT9"])
    created_at: datetime
    last_used_at: datetime | None = None


class CreatedApiKey(ApiKey):
    """A new key, shown this once."""

    key: str = Field(description="Keep it: it can't be shown again")


class ApiKeys(Answer):
    """The keys of an account that work."""

    items: list[ApiKey]


class Balance(Answer):
    """The credits of an account: `held` are promised to predictions that have not ended."""

    available: int = Field(examples=[97])
    held: int = Field(examples=[1])
    threshold: int | None = Field(
        default=None,
        description="Once available and held together are below it, `balance.low` is told, once",
        examples=[20],
    )


class BalanceChange(Request):
    """When to be told that credits run low; null: never."""

    threshold: int | None = Field(ge=1, le=1_000_000_000, examples=[20])


class Transaction(Answer):
    """One movement of credits, which never changes. Signed: how `available` and `held` changed by it."""

    id: int
    kind: Literal["grant", "top_up", "hold", "capture", "release", "refund", "adjustment"]
    amount: int = Field(examples=[1])
    available_change: int = Field(examples=[-1])
    held_change: int = Field(examples=[1])
    prediction_id: UUID | None = None
    reference: str | None = None
    note: str | None = None
    created_at: datetime


class TransactionPage(Answer):
    """A part of the movements, newest first; `next_cursor` is null on the last page."""

    items: list[Transaction]
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after this one")


class UsageOfDay(Answer):
    """What ended on one day (UTC), of one model."""

    day: date = Field(examples=["2026-01-31"])
    model: str = Field(examples=["flight-delay"])
    predictions: int = Field(description="Succeeded, failed and canceled")
    succeeded: int
    failed: int
    canceled: int
    credits: int = Field(description="What those that succeeded have cost")


class Usage(Answer):
    """The newest day first; days and models without any are left out. Some seconds behind."""

    items: list[UsageOfDay]


class OverseenUser(User):
    """An account as operators see it."""

    active: bool = Field(description="Whether anybody can sign in to it")
    closed_at: datetime | None = Field(description="When its owner closed it; one that is not active else was blocked")
    available: int
    held: int


class OverseenUsers(Answer):
    """Accounts, the newest first; `next_cursor` is null on the last page."""

    items: list[OverseenUser]
    next_cursor: str | None


class OverseenUserDetails(OverseenUser):
    """An account as a whole."""

    queued: int = Field(description="Predictions that wait")
    api_keys: int
    sessions: int
    webhooks: int
    chats: int
    predictions: int = Field(description="Ended within 30 days")
    credits: int = Field(description="Spent within 30 days")


class NewGrant(Request):
    """Credits for somebody."""

    # Here and below: neither true nor "7" is a number that somebody meant.
    credits: int = Field(ge=1, le=1_000_000_000, strict=True, examples=[100])
    note: KeptText | None = Field(default=None, max_length=500, description="Why")
    reference: KeptText | None = Field(
        default=None, min_length=1, max_length=200, description="An id in your books; the same one counts once"
    )


class NewRefund(Request):
    """Either what a prediction has cost, once; or a number of credits."""

    prediction_id: UUID | None = None
    credits: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)] | None = None
    note: KeptText | None = Field(default=None, max_length=500, description="Why")


class NewBlock(Request):
    """Why somebody is blocked, or is no more."""

    reason: KeptText | None = Field(default=None, max_length=500)


class NewRole(Request):
    """What somebody is to be."""

    role: Literal["user", "operator"]


class OverseenPrediction(Answer):
    """Somebody's prediction, without what was asked and answered."""

    id: UUID
    user_id: UUID
    username: str
    model: str
    version: str
    pool: str | None = Field(description="Which pool of workers takes it; null: the common one")
    status: Status
    price_credits: int
    created_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker_id: str | None
    error_code: str | None


class OverseenPredictions(Answer):
    """Newest first. A page looks at some thousands at most: it may be short, or empty, and have a next one."""

    items: list[OverseenPrediction]
    next_cursor: str | None


class JournalEntry(Answer):
    """What an operator did. It never changes."""

    id: int
    at: datetime
    operator_id: UUID | None = Field(description="null: by the command line")
    operator: str = Field(examples=["ada"])
    address: str = Field(description="Where they were", examples=["203.0.113.7"])
    act: str = Field(examples=["user.grant"])
    subject: str = Field(examples=["user:019ab3c4-0000-7000-8000-000000000000"])
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class JournalPage(Answer):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[JournalEntry]
    next_cursor: str | None


class NewSilence(Request):
    """For how long to say nothing; 0 ends a silence."""

    minutes: float = Field(ge=0, le=43_200, strict=True, examples=[120])


class NewRedrive(Request):
    """How many of the oldest to send back, at most."""

    limit: int = Field(ge=1, le=100_000, strict=True, examples=[100])


class NewDiscard(Request):
    """How many there are, as whoever throws them away knows."""

    confirm: int = Field(ge=0, le=999_999_999, strict=True, examples=[3])


class MovedLetters(Answer):
    """How many dead letters were sent back or thrown away, and how many were left at that moment."""

    queue: str
    moved: int
    left: int


class Words(Answer):
    """A text in the two languages of the product."""

    en: str
    ru: str


class ModelExample(Answer):
    """A value to try, with the output it gives."""

    title: Words | None = None
    input: dict[str, Any] | None = None
    features: dict[str, Any] | None = None
    output: dict[str, Any]


class Quality(Answer):
    """One measure of how good a model is, from its report, on data that it was not trained on."""

    name: str = Field(examples=["auc"])
    value: float = Field(examples=[0.6913])
    title: Words
    meaning: Words
    better: Literal["higher", "lower"] | None = Field(description="Which values are the better ones")


class Model(Answer):
    """A model that predictions can be asked of."""

    name: str = Field(examples=["flight-delay"])
    version: str = Field(description="The version described here", examples=["1.0.0"])
    default_version: str = Field(description="The version that is meant when none is named", examples=["1.0.0"])
    versions: list[str] = Field(description="Oldest first", examples=[["1.0.0"]])
    title: Words
    description: Words
    price: int = Field(description="Credits for one prediction", examples=[1])
    timeout_s: float = Field(description="After this long a prediction has failed", examples=[30.0])
    fields: list[dict[str, Any]] = Field(description="What to fill in: `input` as a form, made from its schema")
    input_schema: dict[str, Any] = Field(description="JSON Schema of `input`")
    features_schema: dict[str, Any] = Field(description="JSON Schema of `features`")
    output_schema: dict[str, Any] = Field(description="JSON Schema of `output`")
    labels: dict[str, Words] = Field(description="Words for values of the output")
    examples: list[ModelExample]
    quality: list[Quality] = Field(description="From the report of its training, the most telling first")


class Models(Answer):
    """Every model."""

    items: list[Model]


class NewTraffic(Request):
    """How the requests that name no version are divided."""

    default: str | None = Field(default=None, max_length=64, description="null: the highest version")
    weights: dict[
        Annotated[str, Field(max_length=64)],
        Annotated[float, Field(ge=0, le=1_000_000, strict=True, allow_inf_nan=False)],
    ] = Field(default_factory=dict, max_length=50, description="Parts of a canary, by version")
    shadow: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list, max_length=20, description="Versions that run on the same inputs and are never answered"
    )


class NewPrice(Request):
    """What one prediction is to cost."""

    price_credits: Annotated[int, Field(ge=0, le=1_000_000, strict=True)] | None = Field(
        description="null: what settings and manifest say"
    )


class TrafficRule(Answer):
    """What traffic.toml says of a model."""

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
    weight: float | None = Field(description="Its part of what names no version; null: none")
    shadow: bool


class OverseenModel(Answer):
    """A model with its versions."""

    name: str
    title: Words
    default_version: str
    price: int = Field(description="What one prediction costs now")
    manifest_price: int
    rule: TrafficRule
    versions: list[OverseenVersion]
    models_stamp: str = Field(description="`/health` of each service says which one it has followed")


class UnavailableModel(Answer):
    """What is installed and can't be used."""

    name: str
    reason: str


class OverseenModels(Answer):
    """Every model."""

    items: list[OverseenModel]
    unavailable: list[UnavailableModel]


class ModelsStamp(Answer):
    """What `/health` of every service says once it has read everything anew."""

    models_stamp: str


class VersionDid(Answer):
    """What became of the predictions of one version."""

    version: str
    succeeded: int
    failed: int
    queued: int
    canceled: int
    mean_running_s: float | None


class ShadowDid(Answer):
    """How often a shadow said what was answered."""

    version: str
    shadow: str
    same: int
    different: int
    failed: int


class ModelComparison(Answer):
    """Versions side by side."""

    versions: list[VersionDid]
    shadows: list[ShadowDid] | None = Field(description="null: the monitoring service can't be asked")


class CheckFinding(Answer):
    """One step of the check of a package."""

    step: str
    outcome: Literal["ok", "warning", "wrong"]
    detail: str


class PackageName(Answer):
    """Which package that is."""

    name: str
    version: str


class PackageChecked(Answer):
    """What the check of a package found, and what became of it."""

    ready: bool
    installed: bool
    reason: str | None = Field(description="Why it was not installed though it could be read")
    package: PackageName | None
    findings: list[CheckFinding]


class NewNotify(Request):
    """Where the end of one prediction is to be told, besides the webhooks of the account."""

    webhook: str = Field(max_length=2048, examples=["https://example.com/hooks/foretell?order=17"])


class NewPrediction(Request):
    """What is to be predicted: `input` as a person has it, or `features` as the model takes them."""

    model_config = ConfigDict(
        # Null is the same as left out.
        json_schema_extra={
            "oneOf": [
                {
                    "required": [given],
                    "properties": {given: {"type": "object", "additionalProperties": True}, other: {"type": "null"}},
                }
                for given, other in (("input", "features"), ("features", "input"))
            ]
        },
    )

    model: str = Field(examples=["flight-delay"])
    version: str | None = Field(default=None, description="Without one, the default version", examples=["1.0.0"])
    input: dict[str, Any] | None = Field(
        default=None,
        description="Raw fields, to be preprocessed",
        examples=[{"carrier": "AA", "departure_time": "09:30", "distance_miles": 550, "weather_code": 1}],
    )
    features: dict[str, Any] | None = Field(default=None, description="In place of `input`: skips preprocessing")
    notify: NewNotify | None = Field(
        default=None,
        description="Tells this address of its end, signed with the secret of POST /webhooks/once/rotate",
    )


EventType = Literal["prediction.finished", "balance.low", "endpoint.disabled"]
_TYPES = "Which events it is told; null for all, those to come included"
_Description = Annotated[KeptText, Field(max_length=200, examples=["order system"])]
_Url = Annotated[
    str,
    Field(min_length=1, max_length=2048, examples=["https://example.com/hooks/foretell"], json_schema_extra=_PRINTABLE),
]


class NewWebhook(Request):
    """Where an account is told what happens."""

    url: _Url
    events: list[EventType] | None = Field(default=None, min_length=1, max_length=10, description=_TYPES)
    description: _Description | None = None


class WebhookChange(Request):
    """What is to be different; what is not given stays."""

    url: _Url | SkipJsonSchema[None] = None
    events: list[EventType] | None = Field(default=None, min_length=1, max_length=10, description=_TYPES)
    description: _Description | SkipJsonSchema[None] = None
    state: Literal["enabled", "paused"] | SkipJsonSchema[None] = Field(
        default=None, description="`paused`: nothing is sent, and nothing forgotten for 7 days"
    )


class Webhook(Answer):
    """A webhook of an account."""

    id: UUID
    url: str
    events: list[str] | None = Field(description=_TYPES)
    description: str
    state: Literal["enabled", "paused", "disabled"] = Field(
        description="`disabled`: we turned it off, see `disabled_reason`"
    )
    disabled_reason: Literal["gone", "failing"] | None = Field(
        description="`gone`: it answered 410. `failing`: nothing succeeded for five days"
    )
    failing_since: datetime | None
    waiting: int = Field(description="Events that it has not had")
    next_attempt_at: datetime | None
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new webhook, with its secret, shown this once."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class Webhooks(Answer):
    """The webhooks of an account, oldest first."""

    items: list[Webhook]


class WebhookSecret(Answer):
    """A new secret, shown this once. For 24 hours everything is signed with the one that it replaces, too."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


class WebhookTest(Answer):
    """A test that is on its way; what became of it stands in the deliveries."""

    sequence: int


class Redelivery(Request):
    """What is to be sent once more: one event by its sequence, or all since a moment, in order."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["sequence"]}, {"required": ["since"]}]})

    # The bounds are the number's: those of the whole field, null would have to keep, too, and that is an error of ours.
    sequence: Annotated[int, Field(ge=1, le=2**63 - 1)] | SkipJsonSchema[None] = None
    since: AwareDatetime | SkipJsonSchema[None] = Field(default=None, examples=["2026-01-31T12:00:00Z"])


class Redelivered(Answer):
    """How many events are going to be sent."""

    events: int


class Delivery(Answer):
    """One attempt to tell a webhook. Of its answer only the status is known."""

    id: int
    event_id: UUID = Field(description="`webhook-id`: the same over all attempts")
    sequence: int
    type: str
    attempt: int = Field(description="Counted since one succeeded")
    outcome: Literal["delivered", "failed", "given_up"]
    status_code: int | None
    error: str | None = Field(
        description="Why there was no answer: timeout, refused, unreachable, reset, tls, malformed or address"
    )
    duration_ms: int
    at: datetime


class DeliveryPage(Answer):
    """A part of the attempts, newest first; `next_cursor` is null on the last page."""

    items: list[Delivery]
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after this one")


class Timings(msgspec.Struct, frozen=True):
    """How long it took, in seconds; null while it is not known."""

    #: From acceptance until a worker began, from there to the end, and from acceptance to the end.
    waiting_s: float | None = None
    running_s: float | None = None
    total_s: float | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction that was accepted. It ends once: succeeded (charged), failed or canceled (credits come back)."""

    id: UUID
    status: Annotated[Status, Meta(examples=["queued"])]
    model: Annotated[str, Meta(examples=["flight-delay"])]
    version: Annotated[str, Meta(examples=["1.0.0"])]
    price: Annotated[int, Meta(description="Credits", ge=0, examples=[1])]
    output: Annotated[
        msgspec.Raw | None, Meta(description="Once it succeeded", examples=[{"prediction": 0, "probability": 0.1874}])
    ] = None
    error: Annotated[Failure | None, Meta(description="Once it failed")] = None
    worker_id: Annotated[str | None, Meta(description="Which worker ran it")] = None
    created_at: datetime
    expires_at: Annotated[datetime, Meta(description="If it has not ended by then it fails with `expired`")]
    published_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    timings: Timings = Timings()


class QueuePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a queued prediction stands: about, as it was some seconds ago."""

    ahead: Annotated[int, Meta(description="How many of this installation's wait before it", ge=0)]
    expected_wait_s: Annotated[float | None, Meta(description="At the pace of the last seconds")] = None


class PredictionDetails(Prediction, frozen=True, kw_only=True):
    """A prediction with what was asked, as `input` or as `features`."""

    input: Annotated[msgspec.Raw | None, Meta(description="As it was sent")] = None
    features: Annotated[msgspec.Raw | None, Meta(description="As they were sent")] = None
    queue: Annotated[QueuePlace | None, Meta(description="While it is queued, where anybody can say")] = None


class PredictionPage(msgspec.Struct, frozen=True):
    """A part of the history, newest first; `next_cursor` is null on the last page."""

    items: list[Prediction]
    next_cursor: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an account, as `GET /events` shows it."""

    id: Annotated[UUID, Meta(description="The same over all attempts at all receivers")]
    type: Annotated[str, Meta(examples=["prediction.finished"])]
    timestamp: datetime
    sequence: Annotated[int, Meta(description="Counted per account, without gaps", ge=1, examples=[1])]
    data: Annotated[msgspec.Raw, Meta(description="Of prediction.finished: as GET /predictions/{id} shows it")]


class EventPage(msgspec.Struct, frozen=True):
    """Events, oldest first. `more`: there are more already."""

    items: list[Event]
    next_cursor: Annotated[str, Meta(description="Send it as `after` for what comes next")]
    more: bool


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook is sent. Its id is in the header `webhook-id`."""

    type: str
    timestamp: datetime
    data: msgspec.Raw
    sequence: int


class TelegramLink(Answer):
    """A deep link that lets a chat of Telegram act for the account: whoever opens it first, once."""

    url: str | None = Field(
        description="To open; null while it is not known what the bot is called",
        examples=["https://t.me/foretell_bot?start=Jf3…"],
    )
    code: str = Field(description="What to send to the bot in its place: /start CODE")
    expires_at: datetime


class TelegramChat(Answer):
    """A chat that acts for the account."""

    chat_id: int
    name: str | None = Field(description="What Telegram calls the person or the group")
    linked_at: datetime


class TelegramChats(Answer):
    """Which chats act for the account."""

    bot: str | None = Field(description="What the bot is called; null before it ever ran", examples=["foretell_bot"])
    items: list[TelegramChat]
