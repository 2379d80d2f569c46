"""Types of the API's answers, for type checkers, editors and `help()`.

Times are texts in ISO 8601 (UTC), credits are whole numbers, names that end with `_s` are seconds and with `_ms`
milliseconds.

They correspond to the schemas in `contracts/http/`; a later release may add fields.
"""

from typing import Any, Literal, TypedDict

Status = Literal["queued", "succeeded", "failed", "canceled"]


class User(TypedDict):
    """An account."""

    id: str
    username: str
    role: Literal["user", "operator"]
    created_at: str
    #: Language of the page; None: as set in the browser.
    language: Literal["en", "ru"] | None
    theme: Literal["light", "dark"] | None


class Tokens(TypedDict):
    """The result of a log-in: an access token for `expires_in` seconds, and a refresh token for the next pair."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str


class Balance(TypedDict):
    """Credits that are available, and credits held by predictions that have not ended."""

    available: int
    held: int
    #: The event `balance.low` is sent below so many credits; None: never.
    threshold: int | None


class Transaction(TypedDict):
    """One movement of credits."""

    id: int
    kind: Literal["grant", "top_up", "hold", "capture", "release", "refund", "adjustment"]
    amount: int
    available_change: int
    held_change: int
    prediction_id: str | None
    reference: str | None
    note: str | None
    created_at: str


class TransactionPage(TypedDict):
    """Movements, newest first; `next_cursor` asks for the page after and is None on the last one."""

    items: list[Transaction]
    next_cursor: str | None


class UsageOfDay(TypedDict):
    """Usage of one model on one day (UTC, YYYY-MM-DD): ended predictions and their cost."""

    day: str
    model: str
    predictions: int
    succeeded: int
    failed: int
    canceled: int
    credits: int


class About(TypedDict):
    """Facts about an installation."""

    product: str
    version: str
    environment: Literal["development", "production"]
    languages: list[str]
    registration_open: bool
    signup_credits: int
    telegram: bool
    telegram_bot: str | None


class Words(TypedDict):
    """A text in both languages."""

    en: str
    ru: str


class ModelExample(TypedDict):
    """A value to try, `input` or `features`, with its output."""

    title: Words | None
    input: dict[str, Any] | None
    features: dict[str, Any] | None
    output: dict[str, Any]


class Quality(TypedDict):
    """One measure of how good a model is, from its report."""

    name: str
    value: float
    title: Words
    meaning: Words
    better: Literal["higher", "lower"] | None


class Model(TypedDict):
    """A model. `contracts.fields.read_fields` makes objects of its `fields`."""

    name: str
    version: str
    default_version: str
    versions: list[str]
    title: Words
    description: Words
    price: int
    timeout_s: float
    fields: list[dict[str, Any]]
    input_schema: dict[str, Any]
    features_schema: dict[str, Any]
    output_schema: dict[str, Any]
    labels: dict[str, Words]
    examples: list[ModelExample]
    quality: list[Quality]


class QueuePlace(TypedDict):
    """The approximate place of a queued prediction, some seconds old."""

    ahead: int
    expected_wait_s: float | None


class Failure(TypedDict):
    """Why a prediction failed."""

    code: str
    message: str


class Timings(TypedDict):
    """How long a prediction waited and ran, in seconds; None while unknown."""

    waiting_s: float | None
    running_s: float | None
    total_s: float | None


class Prediction(TypedDict):
    """A prediction in its current state."""

    id: str
    status: Status
    model: str
    version: str
    price: int
    output: Any
    error: Failure | None
    worker_id: str | None
    created_at: str
    expires_at: str
    published_at: str | None
    started_at: str | None
    finished_at: str | None
    timings: Timings


class PredictionDetails(Prediction):
    """A prediction with its `input` or `features`."""

    input: Any
    features: Any
    #: While it is queued, if known.
    queue: QueuePlace | None


class PredictionPage(TypedDict):
    """Predictions, newest first; `next_cursor` asks for the page after and is None on the last one."""

    items: list[Prediction]
    next_cursor: str | None


class ApiKey(TypedDict):
    """A key without its secret."""

    id: str
    name: str
    prefix: str
    created_at: str
    last_used_at: str | None


class CreatedApiKey(ApiKey):
    """A new key, shown only once."""

    key: str


class Event(TypedDict):
    """An event of the account; `data` of prediction.finished is a `PredictionDetails`."""

    id: str
    type: str
    timestamp: str
    sequence: int
    data: Any


class EventPage(TypedDict):
    """Events, oldest first; `next_cursor` is for the events after these, now or later."""

    items: list[Event]
    next_cursor: str
    more: bool


class Webhook(TypedDict):
    """A webhook, without its secret."""

    id: str
    url: str
    events: list[str] | None
    description: str
    state: Literal["enabled", "paused", "disabled"]
    disabled_reason: Literal["gone", "failing"] | None
    failing_since: str | None
    waiting: int
    next_attempt_at: str | None
    created_at: str


class CreatedWebhook(Webhook):
    """A new webhook with its secret, shown only once."""

    secret: str


class Delivery(TypedDict):
    """One attempt to deliver an event to a webhook."""

    id: int
    event_id: str
    sequence: int
    type: str
    attempt: int
    outcome: Literal["delivered", "failed", "given_up"]
    status_code: int | None
    error: str | None
    duration_ms: int
    at: str


class DeliveryPage(TypedDict):
    """Attempts, newest first; `next_cursor` asks for the page after and is None on the last one."""

    items: list[Delivery]
    next_cursor: str | None
