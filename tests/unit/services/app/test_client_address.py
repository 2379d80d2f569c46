"""Who is throttled: the caller, not the proxy, and not whom the caller claims to be."""

import ipaddress

import pytest

from foretell.services.app.client_address import client_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


def _address(peer: str | None, *forwarded: str, trusted: bool = True) -> str:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value.encode("latin-1")) for value in forwarded)]
    scope = {"client": (peer, 1234) if peer is not None else None, "headers": headers}
    return client_address(scope, PROXIES if trusted else ())


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["who knows"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, who knows, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["\xff\xfe"], "10.0.0.1"),
    ],
)
def test_only_what_trusted_proxies_say_counts(peer: str, forwarded: list[str], address: str) -> None:
    assert _address(peer, *forwarded) == address


def test_without_trusted_proxies_the_header_means_nothing() -> None:
    assert _address("10.0.0.1", "198.51.100.1", trusted=False) == "10.0.0.1"


def test_a_socket_without_an_address_is_nobody() -> None:
    assert _address(None, "198.51.100.1") == ""
