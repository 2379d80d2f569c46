"""Metrics of the bot."""

from prometheus_client import Counter, Gauge, Histogram

from foretell.kit.metrics import LATENCY_BUCKETS_S

UPDATES = Counter(
    "foretell_bot_updates",
    "Updates of Telegram, by what became of them: handled, failed, given_up, flood.",
    ["outcome"],
)
CALLS = Counter("foretell_bot_telegram_calls", "Calls of the Bot API, by method and outcome.", ["method", "outcome"])
EVENTS = Counter(
    "foretell_bot_events", "Events that were handed to the bot, by what became of them: told, dropped.", ["outcome"]
)
WAITING = Gauge("foretell_bot_outbox_messages", "Events that are stored and not told yet.")
TELLING = Histogram(
    "foretell_bot_telling_duration_seconds", "From an event's arrival until it is told.", buckets=LATENCY_BUCKETS_S
)
PAYMENTS_OPEN = Gauge("foretell_bot_uncounted_payments_items", "Payments in stars that the app does not know of yet.")
