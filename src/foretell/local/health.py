"""Checks the health of services."""

import http.client
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from foretell.local.installation import Program

#: Time limit for an answer.
TIMEOUT_S = 3.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - we ask there, we do not listen


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of one service to `GET /health`."""

    healthy: bool
    #: Why it is not healthy, in a few words.
    reason: str = ""
    #: Whether anything listens on its port.
    listens: bool = True
    #: The models that it is loading, and for how many seconds each; 0 for one that is queued.
    loading: Mapping[str, float] = field(default_factory=dict)


def reachable_host(host: str) -> str:
    """The address at which a service that listens on `host` can be reached."""
    return _EVERYWHERE.get(host, host)


def details(program: Program) -> dict[str, Any] | None:
    """The whole `/health` of one process; None if it does not answer, or another program does."""
    connection = http.client.HTTPConnection(reachable_host(program.host), program.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        body = json.loads(connection.getresponse().read(1024 * 1024))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return body if isinstance(body, dict) and body.get("instance") == program.instance else None


def ask(program: Program) -> Health:
    """The health of one process."""
    connection = http.client.HTTPConnection(reachable_host(program.host), program.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body = json.loads(response.read(1024 * 1024))
    except TimeoutError:
        return Health(False, f"no answer within {TIMEOUT_S:g} s")
    except OSError:
        return Health(False, "does not listen", listens=False)
    except (http.client.HTTPException, ValueError):
        return Health(False, f"something else answers on port {program.port}")
    finally:
        connection.close()
    if not isinstance(body, dict) or body.get("instance", program.instance) != program.instance:
        return Health(False, f"something else answers on port {program.port}")
    if response.status == 200:
        return Health(True, loading=_loading(body.get("loading")))
    failing = body.get("failing")
    reason = "; ".join(f"{part}: {why}" for part, why in failing.items()) if isinstance(failing, dict) else ""
    return Health(False, reason or str(body.get("status", response.status)))


def _loading(said: Any) -> dict[str, float]:
    if not isinstance(said, dict):
        return {}
    return {str(model): float(seconds) for model, seconds in said.items() if isinstance(seconds, int | float)}


def ask_all(programs: list[Program]) -> dict[str, Health]:
    """The health of all of them, by name, checked in parallel."""
    if not programs:
        return {}
    with ThreadPoolExecutor(max_workers=min(16, len(programs)), thread_name_prefix="health") as threads:
        return dict(zip((program.name for program in programs), threads.map(ask, programs), strict=True))
