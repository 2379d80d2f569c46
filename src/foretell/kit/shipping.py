"""Sends this process's log lines and heartbeats to the monitoring service, in the background and with limits.

The process never waits for it. While the monitoring service is unreachable, lines wait in a few megabytes of
memory; beyond that the oldest are dropped, counted, and logged when the service is back.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from prometheus_client import Counter

from foretell.kit import metrics
from foretell.kit.clock import now
from foretell.kit.heartbeats import Health, Heartbeat, memory_bytes
from foretell.kit.log_buffer import LogBuffer
from foretell.kit.posting import NDJSON, NotReached, Poster, host_and_port
from foretell.kit.settings import ServiceSettings

log = structlog.get_logger()

LINES_SHIPPED = Counter("foretell_log_lines_shipped", "Log lines that the monitoring service has taken.")
LINES_DROPPED = Counter(
    "foretell_log_lines_dropped", "Log lines that the monitoring service did not take in time, or refused."
)
CPU_S = Counter("foretell_shipping_cpu_seconds", "Processor time of the thread that sends logs and heartbeats.")

#: Returns the counts of the models' rows since the last call, for the next heartbeat; set by the observer.
observations: Callable[[], list[Any]] = list

_MAX_BUFFERED_BYTES = 8 * 1024 * 1024
#: Largest batch of lines; half of it is sent at once. If the server can't handle it, batches get smaller.
_BATCH_BYTES = 512 * 1024
_SMALLEST_BATCH_BYTES = 32 * 1024
#: How long lines wait for others.
_GATHER_S = 0.5
_TIMEOUT_S = 5.0
_LONGEST_PAUSE_S = 5.0
#: A shorter outage is a restart, and is not logged. Further losses within a minute are not logged either.
_AWAY_AFTER_S = 10.0
_TELL_LOSSES_EVERY_S = 60.0
#: Limit of observations that wait for a successful heartbeat.
_MAX_OBSERVATIONS = 500
#: How long the end of the process may wait for the last batch.
CLOSE_WITHIN_S = 2.0

#: Statuses after which a request is repeated; with other 4xx the server would refuse the same content again.
_TRY_AGAIN = frozenset({401, 403, 408, 429})


class _Beat(NamedTuple):
    """The state of this process that the event loop reported at one moment."""

    at: datetime
    health: Health
    host: str
    port: int


class Shipper:
    """A thread that sends lines and heartbeats. Its methods return at once."""

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        max_buffered_bytes: int = _MAX_BUFFERED_BYTES,
        gather_s: float = _GATHER_S,
        away_after_s: float = _AWAY_AFTER_S,
    ) -> None:
        """`url` and `token` are those of the monitoring service.

        Lines wait `gather_s` for others; this is also the first pause after a failure. An outage of `away_after_s` is
        logged as a warning.
        """
        self._max_buffered_bytes = max_buffered_bytes
        self._enough_bytes = min(_BATCH_BYTES, max_buffered_bytes) // 2
        self.buffer = LogBuffer(max_buffered_bytes)
        self._poster = Poster(url, token=token, timeout_s=_TIMEOUT_S)
        self._gather_s = gather_s
        self._away_after_s = away_after_s
        self._started_at = now()
        self._hostname = socket.gethostname()
        # Only the newest counts; the event loop sets the one, the thread the other.
        self._last_beat: _Beat | None = None
        self._told_beat: _Beat | None = None
        self._observations: list[Any] = []
        self._batch_bytes = _BATCH_BYTES
        self._pause_s = 0.0
        self._away_since: float | None = None
        self._complained = False
        self._counted_dropped = 0
        self._told_dropped = 0
        self._told_at = -_TELL_LOSSES_EVERY_S
        self._refused_heartbeat = False
        self._goodbye = False
        self._close_by = float("inf")
        self._prepare_thread()

    def _prepare_thread(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def _start_thread(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
                self._thread.start()

    # Called by other code

    def take_lines(self, data: bytes, lines: int) -> None:
        """Queue these whole lines for sending."""
        self.buffer.add(data, lines)
        if self._thread is None:
            self._start_thread()
        if self.buffer.waiting_bytes >= self._enough_bytes and not self._wake.is_set():
            self._wake.set()

    def take_health(self, health: Health, host: str, port: int) -> None:
        """Send a heartbeat with this health now, from a service that listens on `host` and `port`."""
        self._last_beat = _Beat(now(), health, host, port)
        if self._thread is None:
            self._start_thread()
        self._wake.set()

    def close(self, *, goodbye: bool, within_s: float = CLOSE_WITHIN_S) -> None:
        """Send the rest, and a final heartbeat if `goodbye`; wait for it, but at most `within_s`."""
        self._goodbye = goodbye
        self._close_by = time.monotonic() + within_s
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(within_s)

    def after_fork(self) -> None:
        """In the child of a fork: drop the queue and connection of the parent; the child sends its own lines.

        Most children only start another program, so the thread starts with the first line.
        """
        self.buffer = LogBuffer(self._max_buffered_bytes)
        self._poster.close()
        self._last_beat = self._told_beat = None
        self._counted_dropped = self._told_dropped = 0
        self._prepare_thread()

    # The thread

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._pause_s:
                self._closing.wait(self._pause_s)
            else:
                self._wake.wait(self._gather_s)
            self._wake.clear()
            self._round(last=False)
        self._round(last=True)
        self._poster.close()

    def _round(self, *, last: bool) -> None:
        """Send everything that waits. Never raises, so that the next round follows."""
        used = time.thread_time()
        try:
            self._send(last=last)
            self._reached()
        except NotReached as error:
            self._not_reached(str(error))
        except Exception:
            # The observations may be the cause of the failure, so drop them.
            self._observations.clear()
            self._back_off()
            log.exception("shipping_failed")
        self._count_dropped()
        CPU_S.inc(time.thread_time() - used)

    def _send(self, *, last: bool) -> None:
        if last and self._goodbye and self._last_beat is not None:
            self._told_beat = self._last_beat
            self._send_heartbeat(self._last_beat._replace(at=now()), goodbye=True)
        self._send_heartbeats()
        least = 0
        while self.buffer.waiting_bytes > least:
            self._send_lines()
            # Lines that arrive while we send are collected again; but the last ones are all sent.
            least = 0 if last else self._batch_bytes // 2
            self._send_heartbeats()

    def _send_lines(self) -> None:
        chunks = self.buffer.take(self._batch_bytes)
        try:
            status = self._post("/logs", b"".join(chunk.data for chunk in chunks), NDJSON)
        except BaseException:
            self.buffer.put_back(chunks)
            self._batch_bytes = max(self._batch_bytes // 2, _SMALLEST_BATCH_BYTES)
            raise
        lines = sum(chunk.lines for chunk in chunks)
        accepted = status < 300
        self.buffer.done(chunks, dropped=not accepted)
        if accepted:
            LINES_SHIPPED.inc(lines)
            self._batch_bytes = min(self._batch_bytes * 2, _BATCH_BYTES)
        else:
            self._tell_losses(f"the monitoring service answered {status}")

    def _post(self, path: str, body: bytes, content_type: str) -> int:
        """The status of the answer. Also raises `NotReached` if the server can't accept it now."""
        left_s = self._close_by - time.monotonic()
        if left_s <= 0:
            raise NotReached("time is up")
        self._poster.timeout_s = min(_TIMEOUT_S, left_s)
        status = self._poster.post(path, body, content_type)
        if status in _TRY_AGAIN or status >= 500:
            raise NotReached(f"it answered {status}")
        return status

    # Heartbeats

    def _send_heartbeats(self) -> None:
        while (beat := self._last_beat) is not None and beat is not self._told_beat:
            self._told_beat = beat
            try:
                self._send_heartbeat(beat)
            except NotReached:
                # Sent again as soon as the server answers, so that a new instance is visible at once.
                self._told_beat = None
                raise

    def _send_heartbeat(self, beat: _Beat, *, goodbye: bool = False) -> None:
        self._observe()
        status = self._post("/heartbeats", msgspec.json.encode(self._heartbeat(beat, goodbye)), "application/json")
        # Sent, or refused by the server.
        self._observations.clear()
        if status >= 300 and not self._refused_heartbeat:
            log.warning("heartbeat_refused", answer=status)
        self._refused_heartbeat = status >= 300

    def _observe(self) -> None:
        """Collect observations; they are kept until a heartbeat with them has arrived."""
        try:
            self._observations += observations()
        except Exception:
            log.exception("observing_failed")
        del self._observations[:-_MAX_OBSERVATIONS]

    def _heartbeat(self, beat: _Beat, goodbye: bool) -> Heartbeat:
        self._count_dropped()
        return Heartbeat(
            service=beat.health["service"],
            instance=beat.health["instance"],
            version=beat.health["version"],
            started_at=self._started_at,
            at=beat.at,
            health=beat.health,
            pid=os.getpid(),
            hostname=self._hostname,
            address=self._address(beat.host, beat.port),
            memory_bytes=memory_bytes(),
            cpu_s=time.process_time(),
            metrics=metrics.collect(),
            observations=self._observations,
            logs_dropped=self.buffer.dropped,
            goodbye=goodbye,
        )

    def _address(self, host: str, port: int) -> str:
        if host in _EVERYWHERE:
            # The server can reach this process at the address that it connects from.
            host = self._poster.local_host or self._hostname
        return host_and_port(host, port)

    # Logging of outages

    def _reached(self) -> None:
        self._pause_s = 0.0
        if self._complained:
            lost = self.buffer.dropped - self._told_dropped
            away_s = time.monotonic() - (self._away_since or 0.0)
            log.info("log_shipping_resumed", lines_dropped=lost, away_s=round(away_s, 1))
            self._told_dropped = self.buffer.dropped
        elif self.buffer.dropped > self._told_dropped:
            self._tell_losses("they came faster than the monitoring service took them")
        self._away_since, self._complained = None, False

    def _not_reached(self, reason: str) -> None:
        self._back_off()
        if self._away_since is None:
            self._away_since = time.monotonic()
        if not self._complained and time.monotonic() - self._away_since >= self._away_after_s:
            log.warning("log_shipping_interrupted", server_address=self._poster.server, reason=reason)
            self._complained = True

    def _back_off(self) -> None:
        self._pause_s = min(self._pause_s * 2 or self._gather_s, _LONGEST_PAUSE_S)

    def _tell_losses(self, reason: str) -> None:
        if time.monotonic() - self._told_at >= _TELL_LOSSES_EVERY_S:
            lost = self.buffer.dropped - self._told_dropped
            log.warning("log_lines_dropped", lines_dropped=lost, reason=reason)
            self._told_at, self._told_dropped = time.monotonic(), self.buffer.dropped

    def _count_dropped(self) -> None:
        dropped = self.buffer.dropped
        LINES_DROPPED.inc(dropped - self._counted_dropped)
        self._counted_dropped = dropped


_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - we say where we are, we do not listen

_shipper: Shipper | None = None


def start(settings: ServiceSettings) -> Shipper | None:
    """Start sending to the monitoring service of `settings`, until the process ends; None if there is none."""
    global _shipper
    if settings.monitoring_url and _shipper is None:
        _shipper = Shipper(
            settings.monitoring_url,
            settings.monitoring_token.get_secret_value(),
            max_buffered_bytes=settings.monitoring_buffer_bytes,
        )
        os.register_at_fork(after_in_child=_shipper.after_fork)
    return _shipper


def current() -> Shipper | None:
    """The shipper of this process, or None."""
    return _shipper
