"""Choose the broker by its URL."""

from foretell.broker.health import show
from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.kit.errors import Misconfigured


async def connect(url: str, *, name: str, prefix: str = "", delivery_limit: int = queues.DELIVERY_LIMIT) -> Broker:
    """Open the broker at `url`: `amqp://…` is RabbitMQ (one node or several), `sqlite:///PATH` the embedded one.

    `name` says who connects (shown in RabbitMQ's connection list). `prefix` is put before every queue and exchange
    name, so that several installations, or tests, can share one broker. Does not wait for a RabbitMQ that is away:
    calls raise `BrokerUnavailable` until it is there, and `receive` waits. Raises `Misconfigured` for another scheme.
    """
    if url.startswith(("amqp://", "amqps://")):
        from foretell.broker.rabbitmq import RabbitBroker

        rabbitmq = await RabbitBroker.open(url, name=name, prefix=prefix, delivery_limit=delivery_limit)
        show(rabbitmq)
        return rabbitmq
    if url.startswith("sqlite:///"):
        from foretell.broker.sqlite import SqliteBroker

        embedded = await SqliteBroker.open(url, name=name, prefix=prefix, delivery_limit=delivery_limit)
        show(embedded)
        return embedded
    raise _unknown(url)


def check_url(url: str) -> None:
    """Raises `Misconfigured` for a URL that `connect` would refuse."""
    if url.startswith(("amqp://", "amqps://")):
        from foretell.broker.rabbitmq_address import addresses

        addresses(url)
    elif not url.startswith("sqlite:///"):
        raise _unknown(url)


def _unknown(url: str) -> Misconfigured:
    return Misconfigured(f"FORETELL_BROKER_URL must begin with amqp:// or sqlite:///, not {url.split(':')[0]}://")
