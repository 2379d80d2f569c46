"""The client address of a request, behind trusted reverse proxies."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(scope: Mapping[str, Any], trusted_proxies: Sequence[Network]) -> str:
    """The address of the client.

    It is the address of the peer. If that is a trusted proxy, it is the last address in `X-Forwarded-For` that is not a
    trusted proxy; the client may have forged the addresses before that one.
    """
    client = scope.get("client")
    address: str = client[0] if client else ""
    if not trusted_proxies or not is_trusted(address, trusted_proxies):
        return address
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    for hop in reversed(b",".join(values).decode("latin-1").split(",")):
        hop = hop.strip()
        if not _is_address(hop):
            break
        address = hop
        if not is_trusted(hop, trusted_proxies):
            break
    return address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_trusted(address: str, trusted_proxies: Sequence[Network]) -> bool:
    """Whether this is the address of a trusted proxy."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in trusted_proxies)
