"""From the start of a process to its end: logs, event loop, signals, HTTP server, exit code."""

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from foretell.kit import logs, memory, metrics, shipping, standstill, trace_export, tracing
from foretell.kit.asgi import HELD, Application, Receive, Scope, Send
from foretell.kit.clock import uuid7
from foretell.kit.connection_bounds import Bounds, Intake
from foretell.kit.direct import DirectProtocol, DirectRoutes
from foretell.kit.errors import ForetellError, Misconfigured
from foretell.kit.heartbeats import Pulse
from foretell.kit.leaving import leave
from foretell.kit.offloading import exit_beside_threads
from foretell.kit.private_folder import keep_private
from foretell.kit.settings import ServiceSettings


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        from uvloop import new_event_loop
    except ImportError:  # Windows has no uvloop; everything works without it, only slower.
        return asyncio.new_event_loop
    return new_event_loop


log = structlog.get_logger()

_NO_ROUTES = DirectRoutes()
_LAST_WORDS_S = 0.5
#: Open files of a process besides client connections: databases, brokers, models, libraries.
_OTHER_FILES = 256
#: How long a stop waits for the last spans to be sent.
_LAST_SPANS_S = 3.0


def instance_of(service: str, settings: ServiceSettings) -> str:
    """The unique name of this process: the one in the settings, or a generated one."""
    return settings.instance or f"{service}-{socket.gethostname()}-{uuid7().hex[-6:]}"


def run(service: str, settings: ServiceSettings, serve: Callable[[str, asyncio.Event], Awaitable[None]]) -> None:
    """Run `serve(instance, stopping)` until it returns, and exit: 0, or 1 with the reason as a log line.

    SIGTERM and SIGINT set `stopping`; a second one, or a stop that takes longer than the grace period and ten
    seconds, ends the process at once. So does a blocked event loop (`standstill.py`).
    """
    standstill.show_stacks_when_told()
    instance = instance_of(service, settings)
    metrics.STANDSTILLS.inc(settings.standstills)
    memory.have_large_blocks_given_back()
    # Files of a service must not be readable by other users of the machine.
    os.umask(0o077)
    if settings.data_dir.is_dir():
        # Created by the services that need it.
        with suppress(OSError):
            keep_private(settings.data_dir)
    shipper = shipping.start(settings)
    writer = logs.configure(service, instance, settings.log_level, ship=None if shipper is None else shipper.take_lines)
    trace_export.start(service, instance, "rabbitmq" if settings.broker_url.startswith("amqp") else "sqlite")
    threading.excepthook = _log_failed_thread
    status = 1
    # There are many short-lived objects and few cycles: collect less often, and never the objects of the start-up.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_until_stopped(instance, settings, serve))
        status = 0
    except ForetellError as error:
        log.error("service_failed", reason=error.message)
    except Exception as error:
        # The traceback is for developers; operators get what it says, such as a wrong password of the database.
        log.exception("service_failed", reason=(str(error).strip() or type(error).__name__).splitlines()[0])
    finally:
        writer.flush()
        if shipper is not None:
            # A failed process sends no final heartbeat, so it counts as missing until it is started again.
            shipper.close(goodbye=status == 0)
    exit_beside_threads(status)
    if status:
        sys.exit(status)


def _log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """Log an exception that ended a thread as one line, instead of Python's traceback of many lines."""
    log.error("thread_failed", thread=failed.thread.name if failed.thread else "", exc_info=failed.exc_value)


def exit_at_once(status: int) -> None:
    """End the process at once; only waits a moment for its last spans and log lines to be sent."""
    tracing.stop(_LAST_WORDS_S)
    shipper = shipping.current()
    if shipper is not None:
        shipper.close(goodbye=False, within_s=_LAST_WORDS_S)
    os._exit(status)


async def _until_stopped(
    instance: str, settings: ServiceSettings, serve: Callable[[str, asyncio.Event], Awaitable[None]]
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if stopping.is_set():
            log.warning("stop_forced", signal=signal.Signals(number).name)
            exit_at_once(1)
        log.info("stop_requested", signal=signal.Signals(number).name)
        stopping.set()
        loop.call_later(settings.stop_grace_s + 8, _give_up)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    if settings.last_end:
        metrics.CRASHES.labels(settings.last_in_hand or "nothing").inc()
        log.error("process_crashed", ended_by=settings.last_end, in_hand=settings.last_in_hand or "nothing")
    replaced = {"standstills": settings.standstills} if settings.standstills else {}
    log.info("service_starting", pid=os.getpid(), **replaced)
    watch = standstill.Watch(settings.standstill_limit_s, _end_what_stands) if settings.standstill_limit_s else None
    if watch is not None:
        watch.begin()
    try:
        await serve(instance, stopping)
    finally:
        if watch is not None:
            watch.close()
        if tracing.recording():
            await asyncio.to_thread(tracing.stop, _LAST_SPANS_S)
    log.info("service_stopped")


def _end_what_stands(status: int) -> None:
    # The last log lines are sent if possible; the process ends in any case.
    last = threading.Thread(target=exit_at_once, args=(status,), daemon=True)
    last.start()
    last.join(4 * _LAST_WORDS_S)
    standstill.end_now(status)


def _give_up() -> None:
    log.error("stop_overdue")
    exit_at_once(1)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: `run` handles signals."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, intake: Intake) -> None:
        super().__init__(config)
        self._listener = listener
        self._intake = intake

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._intake.leave()
        await leave(self._listener, self._close, self.server_state.connections)
        await super().shutdown(sockets)

    def _close(self) -> None:
        for server in self.servers:
            server.close()


def listen(host: str, port: int, setting: str = "FORETELL_PORT") -> socket.socket:
    """A listening socket. Raises `Misconfigured`, naming the port and the setting that changes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # If two processes start at the same moment, the second one fails here.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"Can't listen on {host}:{port} ({error.strerror}). Set {setting} to a free port."
        ) from error
    listener.setblocking(False)
    return listener


def _within_open_files(connections: int) -> int:
    """`connections`, or fewer if the limit of open files is lower; raises the limit if possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else max(1, min(connections, soft - _OTHER_FILES))


async def serve_http(
    app: Application,
    settings: ServiceSettings,
    stopping: asyncio.Event,
    direct: DirectRoutes = _NO_ROUTES,
) -> None:
    """Serve HTTP until `stopping` is set and current requests are answered, or the grace period is over.

    `direct` are routes that are answered without ASGI if the request is plain; `app` has them, too.
    """
    listener = listen(settings.host, settings.port)
    intake = Intake(
        Bounds(
            head_bytes=settings.max_head_bytes,
            head_s=settings.head_timeout_s,
            body_s=settings.body_timeout_s,
            connections=_within_open_files(settings.max_connections),
            bytes_under_way=settings.max_bytes_under_way,
        )
    )

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            if (held := scope.get(HELD)) is not None:
                held.give_back()

    server = _Server(
        uvicorn.Config(
            answer,
            http=cast(Any, partial(DirectProtocol, routes=direct, intake=intake)),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            # The app has its own setting for trusted proxies.
            proxy_headers=False,
            date_header=False,
            headers=[("x-content-type-options", "nosniff")],
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(settings.stop_grace_s),
            limit_concurrency=None,
        ),
        listener,
        intake,
    )

    async def stop_with_us() -> None:
        await stopping.wait()
        server.should_exit = True

    watchers = [asyncio.create_task(stop_with_us()), asyncio.create_task(intake.watch())]
    host, port = listener.getsockname()[:2]
    log.info("service_listening", server_address=host, port=port)
    shipper = shipping.current()
    pulse = None
    if shipper is not None:
        pulse = Pulse(app, lambda health: shipper.take_health(health, host, port))
        pulse.start()
    try:
        await server.serve(sockets=[listener])
    finally:
        if pulse is not None:
            pulse.served()
        for watcher in watchers:
            watcher.cancel()
        listener.close()
