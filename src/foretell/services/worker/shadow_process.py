"""The process beside a worker in which shadow versions run: what they do to it does nothing to anybody else.

It reads task envelopes from its standard input and writes results to its standard output, each with its length in
front, and ends when its input does. Of a model that is still being loaded it has no results.
"""

import os
import signal
import sys
import threading
import time
from functools import partial
from typing import BinaryIO

import msgspec
import structlog

from foretell.contracts.messages import Result, TaskEnvelope, decode_tasks, encode
from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.registry import ModelNotFound
from foretell.inference.runtimes import load_runtime
from foretell.kit import logs, shipping
from foretell.services.worker.settings import WorkerSettings

log = structlog.get_logger()

#: Bytes of the length in front of a message, most significant first.
LENGTH_BYTES = 4
#: What takes longer to load is left out meanwhile.
_SLOW_AFTER_S = 5.0
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
    loads = _Loads(engine)
    while (message := read_message(sys.stdin.buffer)) is not None:
        if registry.refresh_if_told():
            engine.keep_only(registry.kept)
        envelope = decode_tasks(message)
        answers.write(framed(encode([] if loads.are_under_way(envelope) else engine.run(envelope))))
        answers.flush()


class _Loads:
    """Loads each model in a thread, so that one that takes minutes holds up neither the worker nor the others."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: By the identity of their packages.
        self._threads: dict[int, tuple[ModelPackage, threading.Thread]] = {}

    def are_under_way(self, envelope: TaskEnvelope) -> bool:
        """Whether the model of this envelope is still being loaded; begins with it, if nobody has."""
        try:
            package = self._engine.registry.resolve(envelope.model, envelope.version)
        except ModelNotFound:
            return False
        if id(package) not in self._threads:
            thread = threading.Thread(target=self._load, args=(package,), daemon=True)
            self._threads[id(package)] = package, thread
            thread.start()
            # Most are loaded in a moment, and then nothing is left out.
            thread.join(_SLOW_AFTER_S)
        return self._threads[id(package)][1].is_alive()

    def _load(self, package: ModelPackage) -> None:
        try:
            self._engine.warm_package(package)
        except PackageBroken as error:
            log.error("model_not_loaded", model=package.name, version=package.version, reason=error.message)


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
