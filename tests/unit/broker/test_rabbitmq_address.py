"""One URL names one node of RabbitMQ or several; what is no such URL is refused without showing its password."""

import pytest
from yarl import URL

from foretell.broker.rabbitmq_address import addresses
from foretell.kit.errors import Misconfigured


def _parts(url: URL) -> tuple[str, str | None, str | None, str | None, int | None, str]:
    # The virtual host as the client library reads it.
    return url.scheme, url.user, url.password, url.host, url.port, url.path[1:] or "/"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://mq", [("amqp", None, None, "mq", 5672, "/")]),
        ("amqp://mq/", [("amqp", None, None, "mq", 5672, "/")]),
        ("amqps://mq", [("amqps", None, None, "mq", 5671, "/")]),
        ("amqp://u:p@a:1,b:2/v", [("amqp", "u", "p", "a", 1, "v"), ("amqp", "u", "p", "b", 2, "v")]),
        ("amqp://u:p@a,b", [("amqp", "u", "p", "a", 5672, "/"), ("amqp", "u", "p", "b", 5672, "/")]),
        ("amqp://u:p%40%2F%3A%23%25@a/%2Fteam%2Fx", [("amqp", "u", "p@/:#%", "a", 5672, "/team/x")]),
        ("amqp://u:p@ss@a/", [("amqp", "u", "p@ss", "a", 5672, "/")]),
        (
            "amqp://[::1]:5673,[fe80::2]/",
            [("amqp", None, None, "::1", 5673, "/"), ("amqp", None, None, "fe80::2", 5672, "/")],
        ),
        ("amqp://u@a?heartbeat=3", [("amqp", "u", None, "a", 5672, "/")]),
    ],
)
def test_every_host_gets_a_url_of_its_own(url: str, expected: list[tuple[object, ...]]) -> None:
    assert [_parts(each) for each in addresses(url)] == expected


def test_options_stay() -> None:
    assert [each.query["heartbeat"] for each in addresses("amqp://a,b/v?heartbeat=3")] == ["3", "3"]


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "amqp://u:secret@",
        "amqp://u:secret@a,,b/",
        "amqp://u:secret@a:0/",
        "amqp://u:secret@a:70000/",
        "amqp://u:secret@a:x/",
        "amqp://u:sec/ret@a/",
        "amqp://u:secret#@a/",
        "amqp://u:secret%zz@a/",
        "amqp://u:secret@::1/",
        "amqp:u:secret@a/",
    ],
)
def test_what_is_no_such_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_BROKER_URL") as refusal:
        addresses(url)
    assert "secret" not in str(refusal.value)
    assert "ret@" not in str(refusal.value)
