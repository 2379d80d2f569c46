"""What both clients share about their connection."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import httpx

from foretell.client.calls import Call

_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0


def settings_of(url: str, token: str | None) -> dict[str, Any]:
    """Arguments for httpx. `token` is an access token or an API key: the API takes both alike."""
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "timeout": httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        # A proxy of the environment can't reach this machine's own loopback.
        "trust_env": not _is_loopback(httpx.URL(url).host),
    }


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def request_of(call: Call[Any], token: str | None = None) -> dict[str, Any]:
    """Arguments for one request of httpx, with `token` in place of that of the connection."""
    proof = {} if token is None else {"Authorization": f"Bearer {token}"}
    return {
        "method": call.method,
        "url": call.path,
        "json": call.json,
        "data": call.form,
        "params": dict(call.query),
        "headers": {**call.headers, **proof},
        "timeout": httpx.Timeout(_TIMEOUT_S + call.extra_wait_s, connect=_CONNECT_TIMEOUT_S),
    }


def looking_pauses_s() -> Iterator[float]:
    """How long to wait between looks at a prediction that has not ended."""
    pause_s = 0.1
    while True:
        yield pause_s
        pause_s = min(2.0, pause_s * 1.5)
