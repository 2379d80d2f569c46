"""Load on a stack in containers, through nginx, and what became of it."""

from collections import Counter
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import httpx
from tests.containers import Stack, wait_until
from tests.faults.callers import Callers
from tests.system import System


def callers(stack: Stack, name: str) -> Callers:
    """Clients of a new user who can pay everything, through nginx."""
    token = stack.add_user(name, 1_000_000)
    return Callers(cast(System, SimpleNamespace(url=stack.url)), UUID(int=0), token, body=None)


def settled(stack: Stack, asked: Callers) -> Counter[str]:
    """Wait until every prediction that was promised has ended; how they did."""
    ended: dict[UUID, str] = {}
    with httpx.Client(base_url=stack.url, timeout=60, headers=asked.headers) as client:

        def all_ended() -> bool:
            for each in set(list(asked.accepted.values())) - ended.keys():
                answer = client.get(f"/predictions/{each}")
                if answer.status_code == 503:
                    return False
                assert answer.status_code == 200, answer.text
                if answer.json()["status"] == "queued":
                    return False
                ended[each] = answer.json()["status"]
            return True

        wait_until(all_ended, "predictions that were promised have ended", 300.0)
    return Counter(ended.values())
