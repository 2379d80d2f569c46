"""The names of queues and events, and the bounds of what travels through them."""

TASKS = "ml_tasks"
RESULTS = "ml_results"
EVENTS = "ml_events"

#: Routing key of the event that says how predictions ended.
PREDICTION_FINISHED = "prediction.finished"
#: Routing key of the event that says which accounts have new events: a `ToldEvent`.
EVENTS_WRITTEN = "events.written"
#: Routing key of the event by which a worker says which tasks it keeps for long.
TASKS_KEPT = "tasks.kept"

#: At most this many tasks in one envelope ...
MAX_ENVELOPE_TASKS = 256
#: ... and at most this many bytes, unless one task alone is larger.
MAX_ENVELOPE_BYTES = 256 * 1024
#: At most this many bytes of outputs in one event, unless one alone is larger.
MAX_EVENT_BYTES = 1024 * 1024
#: What the embedded broker takes at most, as RabbitMQ 4 does unless it is told otherwise (`max_message_size`).
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
#: After this many deliveries without an acknowledgement a message goes to the dead-letter queue.
DELIVERY_LIMIT = 3
#: In the headers of a copy of a message: how many deliveries of it count that were before. A copy is a new message to
#: the broker, and an input that kills its worker must not begin anew with each.
EARLIER_ATTEMPTS = "foretell-earlier-attempts"
#: A run that is this many pulses (`FORETELL_TASK_PULSE_S`) long is acknowledged: from then on its worker's word is its
#: lease ...
PULSES_UNTIL_RELEASED = 4
#: ... which has run out after this many pulses without a word.
PULSES_OF_SILENCE = 3


def tasks_queue(pool: str | None) -> str:
    """The task queue of a pool of workers; models without a pool share `ml_tasks`."""
    return f"{TASKS}.{pool}" if pool else TASKS


def dead_queue(queue: str) -> str:
    """Where messages of `queue` go that could not be handled."""
    return f"{queue}.dead"
