"""The names of queues and events, and the limits of messages."""

TASKS = "ml_tasks"
RESULTS = "ml_results"
EVENTS = "ml_events"

#: Routing key of the event about ended predictions.
PREDICTION_FINISHED = "prediction.finished"
#: Routing key of the event about accounts with new events: a `ToldEvent`.
EVENTS_WRITTEN = "events.written"
#: Routing key of the event by which a worker renews its leases of tasks.
TASKS_KEPT = "tasks.kept"

#: At most this many tasks in one envelope ...
MAX_ENVELOPE_TASKS = 256
#: ... and at most this many bytes, unless one task alone is larger.
MAX_ENVELOPE_BYTES = 256 * 1024
#: At most this many bytes of outputs in one event, unless one alone is larger.
MAX_EVENT_BYTES = 1024 * 1024
#: The largest message of the embedded broker; the default of RabbitMQ 4 is the same (`max_message_size`).
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
#: After this many deliveries without an acknowledgement a message goes to the dead-letter queue.
DELIVERY_LIMIT = 3
#: Header of a copy of a message: the number of its earlier deliveries. For the broker a copy is a new message, but
#: the delivery limit must also apply to an input that kills its worker again and again.
EARLIER_ATTEMPTS = "foretell-earlier-attempts"
#: In the headers of a task that was published again from a dead-letter queue because no worker had sent an event
#: before its last attempt. This happens once.
SECOND_ROUND = "foretell-second-round"
#: A run that takes this many pulses (`FORETELL_TASK_PULSE_S`) is acknowledged; from then on its worker holds a
#: lease ...
PULSES_UNTIL_RELEASED = 4
#: ... which expires after this many pulses without a renewal.
PULSES_OF_SILENCE = 3


def tasks_queue(pool: str | None) -> str:
    """The task queue of a pool of workers; models without a pool share `ml_tasks`."""
    return f"{TASKS}.{pool}" if pool else TASKS


def dead_queue(queue: str) -> str:
    """The dead-letter queue of `queue`."""
    return f"{queue}.dead"
