"""What an installation with a RabbitMQ of its own loads into it: queues, and a user with the least rights per service.

Every service declares the queues that it uses, so each may configure these. Nobody but the dispatcher reads results,
and nobody but workers and dispatcher reads tasks (the app those of pools, whose queues it declares); whoever publishes
does so by the default exchange, which leads to every queue.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from foretell.broker.rabbitmq_topology import Topology
from foretell.contracts import queues

_VHOST = "/"
_NOTHING = "^$"
_TASKS, _RESULTS, _DEAD = r"ml_tasks.*", r"ml_results.*", r"ml_(tasks|results).*\.dead"
#: The queue with a name by the broker that a subscriber to events has.
_OWN = r"amq\.gen.*"
_EXCHANGES = ("ml_dead_letters", "ml_events")
_DECLARED = (_TASKS, _RESULTS, "ml_dead_letters")


def _any(*names: str) -> str:
    return f"^({'|'.join(names)})$"


#: What each service may configure, write and read. To declare a queue one must read it and write to its dead letters;
#: to bind it, write to it and read the exchange.
RIGHTS: dict[str, tuple[str, str, str]] = {
    "app": (
        _any(*_DECLARED, "ml_events", _OWN),
        _any(r"amq\.default", _DEAD, "ml_dead_letters", _OWN),
        _any(r"ml_tasks\..+", *_EXCHANGES, _OWN),
    ),
    "dispatcher": (
        _any(*_DECLARED, "ml_events", _OWN),
        _any(r"amq\.default", _DEAD, *_EXCHANGES, _OWN),
        _any(_TASKS, _RESULTS, *_EXCHANGES, _OWN),
    ),
    "worker": (
        _any(*_DECLARED, "ml_events"),
        _any(r"amq\.default", _DEAD, *_EXCHANGES),
        _any(_TASKS, "ml_dead_letters"),
    ),
    "monitoring": (
        _any(*_DECLARED),
        _any(r"amq\.default", _DEAD, "ml_dead_letters"),
        _any(_DEAD, "ml_dead_letters"),
    ),
}
#: Whoever may do everything, and see the management page.
OPERATOR = "operator"
GUEST = "guest"


def password_hash(password: str) -> str:
    """As RabbitMQ keeps it: base64 of a random salt and the SHA-256 of salt and password."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(passwords: Mapping[str, str], *, guest_looks: bool) -> dict[str, Any]:
    """The file for `load_definitions`. `passwords` of every service in `RIGHTS`, and of `OPERATOR`.

    With `guest_looks`, guest with the password guest sees the management page and may touch nothing; otherwise nobody
    knows its password, also where it could look before.
    """
    guest = ("guest", ["monitoring"]) if guest_looks else (secrets.token_urlsafe(32), [])
    users = {OPERATOR: (passwords[OPERATOR], ["administrator"]), GUEST: guest}
    users |= {name: (passwords[name], []) for name in RIGHTS}
    rights = {OPERATOR: (".*", ".*", ".*"), GUEST: (_NOTHING, _NOTHING, _NOTHING), **RIGHTS}
    return {
        "vhosts": [{"name": _VHOST}],
        "users": [
            {
                "name": name,
                "password_hash": password_hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": tags,
            }
            for name, (password, tags) in users.items()
        ],
        "permissions": [
            {"user": name, "vhost": _VHOST, "configure": configure, "write": write, "read": read}
            for name, (configure, write, read) in rights.items()
        ],
        **_queues(),
    }


def _queues() -> dict[str, Any]:
    """Those that there always are, as services declare them: so nobody needs the right to make them anew."""
    topology = Topology("", queues.DELIVERY_LIMIT)
    ours = (queues.TASKS, queues.RESULTS)
    return {
        "queues": [
            {"name": name, "vhost": _VHOST, "durable": True, "auto_delete": False,
             "arguments": topology.arguments(name)}
            for queue in ours
            for name in (queues.dead_queue(queue), queue)
        ],
        "exchanges": [
            {"name": name, "vhost": _VHOST, "type": kind, "durable": True, "auto_delete": False, "internal": False,
             "arguments": {}}
            for name, kind in ((topology.dead_letters, "direct"), (topology.events, "topic"))
        ],
        "bindings": [
            {"source": topology.dead_letters, "vhost": _VHOST, "destination": queues.dead_queue(queue),
             "destination_type": "queue", "routing_key": queue, "arguments": {}}
            for queue in ours
        ],
    }  # fmt: skip
