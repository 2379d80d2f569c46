"""The process beside a worker in which shadow versions run: what they do to it does nothing to anybody else.

It reads task envelopes from its standard input and writes results to its standard output, each with its length in
front, and ends when its input does.
"""

import os
import signal
import sys
import threading
import time
from functools import partial
from typing import BinaryIO

import msgspec

from foretell.contracts.messages import Result, decode_tasks, encode
from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry
from foretell.inference.runtimes import load_runtime
from foretell.kit import logs, shipping
from foretell.services.worker.settings import WorkerSettings

#: Bytes of the length in front of a message, most significant first.
LENGTH_BYTES = 4
#: Shadows take what processor time nobody else wants.
_NICE = 10

decode_replies = msgspec.json.Decoder(list[Result]).decode


def main() -> None:
    """Run envelopes until there are no more."""
    # What a model prints must not come between our messages: it goes where the logs go.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(_NICE)
    # A stop is the worker's business: it ends us by ending our input, or by force.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    settings = WorkerSettings()
    shipper = shipping.start(settings)
    logs.configure(
        "ml_worker",
        f"{settings.instance or 'worker'}-shadow",
        settings.log_level,
        ship=None if shipper is None else shipper.take_lines,
    )
    registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
    engine = Engine(registry, load=partial(load_runtime, permissions=settings.permissions))
    while (message := read_message(sys.stdin.buffer)) is not None:
        if registry.refresh_if_told():
            engine.keep_only(registry.kept)
        answers.write(framed(encode(engine.run(decode_tasks(message)))))
        answers.flush()


def _end_with(parent: int) -> None:
    """End the process soon after its worker was killed, even while a model hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def framed(message: bytes) -> bytes:
    """A message with its length in front."""
    return len(message).to_bytes(LENGTH_BYTES) + message


def read_message(stream: BinaryIO) -> bytes | None:
    """The next message, or None at the end."""
    length = stream.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    return stream.read(int.from_bytes(length))


if __name__ == "__main__":
    main()
