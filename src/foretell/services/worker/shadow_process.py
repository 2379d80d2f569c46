"""The child process of a worker that runs shadow versions, so that their faults do not affect the worker.

It reads task envelopes from standard input and writes results to standard output, each prefixed with its length, and
ends at the end of its input. For a model that is still being loaded it writes an empty list.
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
from foretell.kit.offloading import exit_beside_threads, start_thread
from foretell.services.worker.settings import WorkerSettings

log = structlog.get_logger()

#: Bytes of the length prefix of a message, big-endian.
LENGTH_BYTES = 4
#: Envelopes are skipped while their model loads for longer than this.
_SLOW_AFTER_S = 5.0
#: Shadows use only spare processor time.
_NICE = 10

decode_replies = msgspec.json.Decoder(list[Result]).decode


def main() -> None:
    """Run envelopes until the end of the input."""
    # A model's prints go to standard error, so that they don't mix with the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(_NICE)
    # The worker ends this process by closing its input or by SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    settings = WorkerSettings()
    shipper = shipping.start(settings)
    writer = logs.configure(
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
    writer.flush()
    exit_beside_threads(0)


class _Loads:
    """Loads each model in a thread, so that one that takes minutes delays neither the worker nor other models."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: By the `id()` of the package.
        self._threads: dict[int, tuple[ModelPackage, threading.Thread]] = {}

    def are_under_way(self, envelope: TaskEnvelope) -> bool:
        """Whether the model of this envelope is still being loaded; starts to load it if necessary."""
        try:
            package = self._engine.registry.resolve(envelope.model, envelope.version)
        except ModelNotFound:
            return False
        if id(package) not in self._threads:
            thread = start_thread(partial(self._load, package))
            self._threads[id(package)] = package, thread
            # Most models load within this time, so that no envelope is skipped.
            thread.join(_SLOW_AFTER_S)
        return self._threads[id(package)][1].is_alive()

    def _load(self, package: ModelPackage) -> None:
        try:
            self._engine.warm_package(package)
        except PackageBroken as error:
            log.error("model_not_loaded", model=package.name, version=package.version, reason=error.message)


def _end_with(parent: int) -> None:
    """End the process soon after its worker has died, even while a model hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def framed(message: bytes) -> bytes:
    """A message with its length prefix."""
    return len(message).to_bytes(LENGTH_BYTES) + message


def read_message(stream: BinaryIO) -> bytes | None:
    """The next message, or None at the end."""
    length = stream.read(LENGTH_BYTES)
    if len(length) < LENGTH_BYTES:
        return None
    return stream.read(int.from_bytes(length))


if __name__ == "__main__":
    main()
