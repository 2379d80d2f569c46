"""The signals of rules besides metrics: presence and health of services and instances, and drift."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase

import msgspec

from foretell.contracts.reports.alert_rules import Rule
from foretell.services.monitoring.alerts.alert import Measurement
from foretell.services.monitoring.alerts.metric_signal import measure_metric
from foretell.services.monitoring.alerts.snapshot import Snapshot
from foretell.services.monitoring.storage.instances import HEALTHY, MISSING, STOPPED, UNHEALTHY, Instance

_LONGEST_FACT = 200
_MOST_NAMED = 5
_STOPPED_LATELY_S = 60.0
#: An instance's start time is by its own clock, which may differ this much.
_CLOCKS_APART_S = 5.0
#: Drift is computed every minute; older findings have no value.
_DRIFT_STALE_S = 900.0


def measure(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """Measure each subject of `rule`."""
    return _SIGNALS[rule.signal](rule, snapshot)


def _service_down(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """1 for each service that was seen within the last day and has no live instance, else 0.

    0 also for a service that has just stopped: it may be restarting, or the whole installation is being stopped.
    """
    measurements = []
    stopped_lately = snapshot.now - timedelta(seconds=_STOPPED_LATELY_S)
    for service, instances in _by_service(rule, snapshot).items():
        last = max(instances, key=lambda each: each.last_seen_at)
        goodbye = last.state == STOPPED and last.last_seen_at > stopped_lately
        down = not goodbye and not any(each.live for each in instances)
        measurements.append(Measurement({"service": service}, float(down), {"last_seen": _minute(last)}))
    return measurements


def _instance_down(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """1 for each missing instance while others of its service run.

    0 for an instance that runs, was stopped (or scaled down), or was replaced. No value for a service without any live
    instance, which `service_down` reports.
    """
    measurements = []
    for service, instances in _by_service(rule, snapshot).items():
        someone_runs = any(each.live for each in instances)
        # Several processes may have had the same name; the newest one counts.
        newest = {each.instance: each for each in sorted(instances, key=lambda each: each.started_at)}
        replaced = _replaced(newest.values())
        for name, each in newest.items():
            subject = {"service": service, "instance": name}
            if each.state != MISSING or name in replaced:
                measurements.append(Measurement(subject, 0.0))
            else:
                value = 1.0 if someone_runs else None
                measurements.append(Measurement(subject, value, {"last_seen": _minute(each)}))
    return measurements


def _replaced(instances: Iterable[Instance]) -> set[str]:
    """The names of missing instances of one service that healthy newer instances have replaced, one for one."""
    instances = list(instances)
    new = sorted((each for each in instances if each.state == HEALTHY), key=lambda each: each.started_at)
    replaced = set()
    for gone in sorted((each for each in instances if each.state == MISSING), key=lambda each: each.last_seen_at):
        since = gone.last_seen_at - timedelta(seconds=_CLOCKS_APART_S)
        taker = next((each for each in new if each.started_at > since), None)
        if taker is not None:
            new.remove(taker)
            replaced.add(gone.instance)
    return replaced


def _service_unhealthy(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """1 for each live instance that reports that it is not healthy, else 0."""
    return [
        Measurement(
            {"service": service, "instance": each.instance},
            float(each.state == UNHEALTHY),
            {"failing": _failing(each)},
        )
        for service, instances in _by_service(rule, snapshot).items()
        for each in instances
        if each.live
    ]


def _service_absent(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """1 for each needed service without an instance for a day, while a service that needs it runs; else 0."""
    seen = {each.service for each in snapshot.instances}
    needed = any(each.live for each in snapshot.instances if each.service in rule.needed_by)
    return [
        Measurement({"service": service}, float(needed and service not in seen)) for service in sorted(rule.services)
    ]


def _drift(rule: Rule, snapshot: Snapshot) -> list[Measurement]:
    """The number of drifted features and outputs of each model version, by the last finding."""
    measurements = []
    for found in snapshot.drift:
        subject = {"model": found.model, "version": found.version}
        if found.computed_at < snapshot.now - timedelta(seconds=_DRIFT_STALE_S):
            measurements.append(Measurement(subject, None))
            continue
        body = msgspec.json.decode(found.body)
        drifted = [str(each["name"]) for each in body["findings"] if each["drifted"]]
        named = ", ".join(drifted[:_MOST_NAMED]) + (", …" if len(drifted) > _MOST_NAMED else "")
        measurements.append(Measurement(subject, float(len(drifted)), {"drifted": named[:_LONGEST_FACT]}))
    return measurements


_SIGNALS: Mapping[str, Callable[[Rule, Snapshot], list[Measurement]]] = {
    "metric": measure_metric,
    "service_down": _service_down,
    "instance_down": _instance_down,
    "service_unhealthy": _service_unhealthy,
    "service_absent": _service_absent,
    "drift": _drift,
}

#: Signals that something is missing. They have no value just after monitoring's start, when everything seems missing.
OF_ABSENCE = frozenset({"service_down", "instance_down", "service_absent"})


def _by_service(rule: Rule, snapshot: Snapshot) -> dict[str, list[Instance]]:
    services: dict[str, list[Instance]] = defaultdict(list)
    for each in snapshot.instances:
        if not rule.services or any(fnmatchcase(each.service, pattern) for pattern in rule.services):
            services[each.service].append(each)
    return services


def _minute(instance: Instance) -> str:
    return f"{instance.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"


def _failing(instance: Instance) -> str:
    failing = instance.health.get("failing")
    if not isinstance(failing, dict):
        return ""
    return ", ".join(f"{name} ({str(why)[:80]})" for name, why in sorted(failing.items()))[:_LONGEST_FACT]
