"""A service for tests of the engine: run as `python stand_in.py NAME`, answers /health as the real ones do.

The name says what is special about it: `crash` ends at once, `stubborn` ignores SIGTERM, `loader` loads models as long
as the file STAND_IN_LOADS is there, and `sick` is never healthy. On SIGUSR2 its event loop turns no more.
"""

import asyncio
import os
import signal
import sys
import time
from typing import Any

import structlog

from foretell.kit.asgi import Operations
from foretell.kit.lifecycle import run, serve_http
from foretell.kit.settings import ServiceSettings


def hold_up() -> None:
    """Keep the event loop for good."""
    while True:
        time.sleep(1)


def main() -> None:
    name = sys.argv[1]
    if name == "crash":
        print("the reason why it crashes", flush=True)
        sys.exit(3)
    settings = ServiceSettings()

    async def serve(instance: str, stopping: asyncio.Event) -> None:
        structlog.get_logger().info("stand_in_started", greeting=os.environ.get("STAND_IN_GREETING", ""))
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, hold_up)
        if name == "stubborn":
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

        def details() -> dict[str, Any]:
            loads = name == "loader" and os.path.exists(os.environ["STAND_IN_LOADS"])
            return {"loading": {"slow 1.0.0": 75.5, "next 1.0.0": 0.0}} if loads else {}

        async def check() -> None:
            if name == "sick":
                raise RuntimeError("a headache")

        operations = Operations(name, instance=instance, version="test", checks={"head": check}, details=details)
        await serve_http(operations, settings, stopping)

    run(name, settings, serve)


if __name__ == "__main__":
    main()
