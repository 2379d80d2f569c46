"""What RabbitMQ is told of users and rights; tests/deploy runs the services with them."""

import base64
import hashlib
import re

import pytest

from foretell.broker.rabbitmq_definitions import GUEST, OPERATOR, RIGHTS, definitions, password_hash
from foretell.contracts import queues

PASSWORDS = {name: f"the password of {name}" for name in (*RIGHTS, OPERATOR)}


def knows(user: dict[str, str], password: str) -> bool:
    """Whether RabbitMQ would let this user in with that password."""
    kept = base64.b64decode(user["password_hash"])
    return kept[4:] == hashlib.sha256(kept[:4] + password.encode()).digest()


def may(user: str, what: str, name: str) -> bool:
    """Whether a user may `configure`, `write` or `read` a queue or exchange."""
    return re.search(RIGHTS[user][("configure", "write", "read").index(what)], name) is not None


def test_a_password_is_salted() -> None:
    assert password_hash("one") != password_hash("one")


def test_each_service_has_a_user_of_its_own() -> None:
    said = definitions(PASSWORDS, guest_looks=False)
    users = {user["name"]: user for user in said["users"]}
    assert users.keys() == {*RIGHTS, OPERATOR, GUEST}
    for name, password in PASSWORDS.items():
        assert knows(users[name], password)
        assert users[name]["tags"] == (["administrator"] if name == OPERATOR else [])


def test_guest_may_look_and_touch_nothing() -> None:
    said = definitions(PASSWORDS, guest_looks=True)
    (guest,) = [user for user in said["users"] if user["name"] == GUEST]
    assert knows(guest, "guest")
    assert guest["tags"] == ["monitoring"]
    (rights,) = [each for each in said["permissions"] if each["user"] == GUEST]
    assert (rights["configure"], rights["write"], rights["read"]) == ("^$", "^$", "^$")


def test_where_guest_could_look_nobody_can_in_production() -> None:
    (guest,) = [user for user in definitions(PASSWORDS, guest_looks=False)["users"] if user["name"] == GUEST]
    assert not knows(guest, "guest")
    assert guest["tags"] == []


@pytest.mark.parametrize(
    ("user", "queue", "readable"),
    [
        ("worker", queues.TASKS, True),
        ("worker", "ml_tasks.gpu", True),
        ("worker", queues.RESULTS, False),
        ("worker", "ml_results.dead", False),
        ("app", queues.RESULTS, False),
        ("app", queues.TASKS, False),
        ("dispatcher", queues.RESULTS, True),
        ("dispatcher", "ml_tasks.dead", True),
        ("monitoring", "ml_tasks.dead", True),
        ("monitoring", queues.TASKS, False),
        ("monitoring", queues.RESULTS, False),
    ],
)
def test_who_reads_what(user: str, queue: str, readable: bool) -> None:
    assert may(user, "read", queue) is readable


@pytest.mark.parametrize("user", RIGHTS)
def test_nobody_touches_what_is_not_ours(user: str) -> None:
    for name in ("other_tasks", "xml_tasks", "amq.topic", "amq.direct"):
        assert not any(may(user, what, name) for what in ("configure", "write", "read")), name


def test_the_queues_lead_their_dead_letters_somewhere() -> None:
    said = definitions(PASSWORDS, guest_looks=True)
    names = {queue["name"] for queue in said["queues"]}
    for queue in said["queues"]:
        exchange = queue["arguments"].get("x-dead-letter-exchange")
        if exchange:
            assert {
                "source": exchange,
                "vhost": "/",
                "destination": f"{queue['name']}.dead",
                "destination_type": "queue",
                "routing_key": queue["arguments"]["x-dead-letter-routing-key"],
                "arguments": {},
            } in said["bindings"]
            assert f"{queue['name']}.dead" in names
    assert {queues.TASKS, queues.RESULTS} <= names
