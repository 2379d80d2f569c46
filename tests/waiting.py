"""Waits for servers that tests start."""

import subprocess
import time
from collections.abc import Callable

import httpx


def wait_until_it_answers(
    url: str, process: "subprocess.Popen[bytes]", said: Callable[[], str], *, patience_s: float, look_every_s: float
) -> None:
    """Wait until `url` answers 200.

    Raises `TimeoutError`, with what the server said, when it has ended or takes too long.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if httpx.get(url, verify=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"{url} does not answer:\n{said()}")
        time.sleep(look_every_s)
