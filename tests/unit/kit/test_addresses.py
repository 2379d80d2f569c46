"""Where strangers may have us send something: nowhere but to machines on the internet."""

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from foretell.kit.addresses import Addresses, AddressRefused, Destination, is_internet, read_url, resolve_name

_PUBLIC = "93.184.216.34"


def _addresses(*found: str, allowed: Sequence[str] = (), needs_tls: bool = False) -> Addresses:
    async def resolve(host: str, port: int) -> list[str]:
        return list(found)

    return Addresses([ipaddress.ip_network(each) for each in allowed], needs_tls=needs_tls, resolve=resolve)


@pytest.mark.parametrize(
    ("url", "destination"),
    [
        ("https://example.com", Destination(True, "example.com", 443, "/")),
        ("https://Example.COM./a/b?c=%20d", Destination(True, "example.com", 443, "/a/b?c=%20d")),
        ("http://xn--e1afmkfd.xn--p1ai:8080/x", Destination(False, "xn--e1afmkfd.xn--p1ai", 8080, "/x")),
        ("https://93.184.216.34/", Destination(True, _PUBLIC, 443, "/")),
        ("https://[2606:4700::1111]:8443/?q", Destination(True, "2606:4700::1111", 8443, "/?q")),
    ],
)
def test_urls_that_can_be_used(url: str, destination: Destination) -> None:
    assert read_url(url) == destination


def test_the_host_is_named_as_it_is_addressed() -> None:
    assert read_url("https://[2606:4700::1111]:8443/").host_header == "[2606:4700::1111]:8443"
    assert read_url("https://example.com/").host_header == "example.com"
    assert read_url("http://example.com:443/").host_header == "example.com:443"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "javascript:alert(1)",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com@169.254.169.254/",
        "https://@example.com/",
        "https://example.com/#fragment",
        "https://example.com/#",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nHost: other",
        "https://example.com/\t",
        "https://example.com\\@127.0.0.1/",
        "https://пример.рф/",
        "https://example.com/путь",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://example.com:22/",
        "https://example.com:25/",
        "http://example.com:6379/",
        "http://example.com:5432/",
        "https://[::1/",
        "https://[fe80::1%eth0]/",
        "https://[v1.a]/",
        "https://[127.0.0.1]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1.1/",
        "https://1.2.3.08/",
        "https://example.0x1/",
        "https://256.1.1.1/",
        "https://exa*mple.com/",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 130 + "com/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_urls_that_can_not(url: str) -> None:
    with pytest.raises(AddressRefused):
        read_url(url)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.0.1", "169.254.1.1", "172.16.0.1"),
        *("172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:93.184.216.34", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "fc00::1", "fd00::1"),
        *("fe80::1", "fec0::1", "ff02::1", "5f00::1"),
    ],
)
def test_what_is_not_on_the_internet(address: str) -> None:
    assert not is_internet(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [_PUBLIC, "1.1.1.1", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::1"])
def test_what_is(address: str) -> None:
    assert is_internet(ipaddress.ip_address(address))


async def test_every_address_of_a_name_counts() -> None:
    destination = read_url("https://example.com/")
    assert await _addresses(_PUBLIC, "2606:4700::1111").of(destination) == [_PUBLIC, "2606:4700::1111"]
    for found in ((_PUBLIC, "10.0.0.1"), ("127.0.0.1",), ("fe80::1%eth0",), ()):
        with pytest.raises(AddressRefused):
            await _addresses(*found).of(destination)


async def test_a_name_that_changes_its_mind_is_asked_each_time() -> None:
    answers = [[_PUBLIC], ["127.0.0.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    addresses = Addresses(needs_tls=False, resolve=resolve)
    destination = read_url("https://example.com/")
    assert await addresses.of(destination) == [_PUBLIC]
    with pytest.raises(AddressRefused):
        await addresses.of(destination)


async def test_networks_of_the_operator() -> None:
    addresses = _addresses("10.1.2.3", allowed=["10.1.0.0/16", "fd00::/8"], needs_tls=True)
    assert await addresses.of(read_url("http://hooks.internal:8080/")) == ["10.1.2.3"]
    assert await addresses.of(read_url("http://[fd00::1]/")) == ["fd00::1"]
    for url in ("http://10.2.0.1/", "http://127.0.0.1/", "http://[::ffff:10.1.2.3]/"):
        with pytest.raises(AddressRefused):
            await addresses.of(read_url(url))


async def test_the_internet_needs_tls_where_that_is_asked_for() -> None:
    with pytest.raises(AddressRefused, match="https"):
        await _addresses(_PUBLIC, needs_tls=True).of(read_url("http://example.com/"))
    assert await _addresses(_PUBLIC, needs_tls=True).of(read_url("https://example.com/")) == [_PUBLIC]
    # One that is named does not make the other one safe.
    both = _addresses(_PUBLIC, "10.0.0.1", allowed=["10.0.0.0/8"], needs_tls=True)
    with pytest.raises(AddressRefused, match="https"):
        await both.of(read_url("http://example.com/"))


async def test_a_name_that_is_none() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    with pytest.raises(AddressRefused, match="resolved"):
        await Addresses(needs_tls=False, resolve=resolve).of(read_url("https://example.invalid/"))


async def test_names_are_resolved_as_the_system_does() -> None:
    found = await asyncio.wait_for(resolve_name("localhost", 80), 20)
    assert {ipaddress.ip_address(address).is_loopback for address in found} == {True}
    with pytest.raises(AddressRefused):
        await Addresses(needs_tls=False).of(read_url("http://localhost/"))
