"""Open and recent alerts, rules, silences, and a test of the channels."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import structlog

from foretell.contracts import openapi
from foretell.contracts.reports.alert_rules import RuleList, ShownMistake
from foretell.contracts.reports.condition import AlertList, ShownAlert, Silenced
from foretell.kit.asgi import Body
from foretell.kit.clock import now, uuid7
from foretell.kit.errors import ForetellError
from foretell.kit.misfits import misfit_of
from foretell.kit.problems import InvalidRequest, MalformedBody
from foretell.kit.routing import Answer, Request, Route, json_answer
from foretell.services.monitoring.alerts import store
from foretell.services.monitoring.alerts.channels import Channel, channels_of
from foretell.services.monitoring.alerts.evaluation import Evaluator
from foretell.services.monitoring.alerts.notification_queue import Sender
from foretell.services.monitoring.alerts.rule_files import RuleFile
from foretell.services.monitoring.alerts.store import StoredAlert
from foretell.services.monitoring.alerts.throttle import Throttle
from foretell.services.monitoring.parts import Part, Surroundings
from foretell.services.monitoring.routes.filters import known_only, whole_number
from foretell.services.monitoring.storage.database import MonitoringDatabase

log = structlog.get_logger()

_USUAL_LIMIT = 100
_LARGEST_LIMIT = 1000
_LONGEST_SILENCE_MINUTES = 30 * 24 * 60


class AlertNotFound(ForetellError):
    """There is no such alert."""

    code = "alert_not_found"
    status = 404


class ChannelTested(msgspec.Struct, frozen=True):
    """A channel's result of a test."""

    channel: str
    taken: bool
    detail: str


class ChannelsTested(msgspec.Struct, frozen=True):
    """The results of all channels."""

    channels: list[ChannelTested]


class SilenceWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long to silence the rule and subject of an alert; 0 ends the silence."""

    minutes: Annotated[float, msgspec.Meta(ge=0, le=_LONGEST_SILENCE_MINUTES)]


_decode_silence = msgspec.json.Decoder(SilenceWanted).decode


class Alerts:
    """The routes."""

    def __init__(self, database: MonitoringDatabase, evaluator: Evaluator, channels: Mapping[str, Channel]) -> None:
        self._database = database
        self._evaluator = evaluator
        self._channels = channels

    @property
    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("GET", "/alerts", self.show),
            Route("GET", "/alerts/rules", self.rules),
            Route("POST", "/alerts/test", self.test),
            Route("POST", "/alerts/{id}/silence", self.silence),
        ]

    async def show(self, request: Request) -> Answer:
        """Open alerts, and those resolved last."""
        given = known_only(request.query(), ("limit",))
        limit = whole_number(given, "limit", _USUAL_LIMIT, least=0, most=_LARGEST_LIMIT)
        async with self._database.snapshot() as connection:
            opened = await store.open_alerts(connection)
            resolved = await store.resolved_alerts(connection, limit) if limit else []
            silenced = await store.silenced(connection, now())
        in_order = sorted(opened.values(), key=lambda each: (each.alert.pending_since, each.alert.id))
        return json_answer(
            AlertList(
                self._evaluator.evaluated_at,
                [self._shown(each, silenced) for each in in_order],
                [self._shown(each, silenced) for each in resolved],
            )
        )

    def _shown(self, stored: StoredAlert, silenced: Mapping[store.Key, datetime]) -> ShownAlert:
        alert = stored.alert
        value = alert.value
        if alert.resolved_at is None:
            # The current value is in memory, because it is not stored every time that it changes.
            read = self._evaluator.measurements.get(alert.rule, {}).get(alert.subject)
            value = read.value if read is not None else value
        return ShownAlert(
            id=alert.id,
            rule=alert.rule,
            subject=stored.subject,
            severity=alert.severity,
            state=alert.state,
            value=value,
            summary=stored.texts.summary,
            action=stored.texts.action,
            pending_since=alert.pending_since,
            fired_at=alert.fired_at,
            resolved_at=alert.resolved_at,
            reason=alert.reason,
            silenced_until=silenced.get((alert.rule, alert.subject)),
        )

    async def rules(self, request: Request) -> Answer:
        """The rules and their errors."""
        file, current = self._evaluator.rules.path, self._evaluator.rules.current
        mistakes = [ShownMistake(each.file, each.rule, each.field, each.detail) for each in current.mistakes]
        rules = sorted(current.rules.values(), key=lambda rule: rule.name)
        return json_answer(RuleList(None if file is None else str(file), rules, mistakes, self._evaluator.failing))

    async def test(self, request: Request) -> Answer:
        """Send a test to every channel once, and return the results."""
        await request.body()
        notice_id, at = f"msg_{uuid7().hex}", now()
        channels = list(self._channels.values())
        outcomes = await asyncio.gather(*(each.send(notice_id, each.trial(at), at) for each in channels))
        tested = [
            ChannelTested(channel.name, outcome.taken, outcome.detail)
            for channel, outcome in zip(channels, outcomes, strict=True)
        ]
        log.info("alert_channels_tested", channels=len(tested), taken=sum(each.taken for each in tested))
        return json_answer(ChannelsTested(tested))

    async def silence(self, request: Request) -> Answer:
        """Silence the rule and subject of an alert for a time. It is still evaluated and shown."""
        wanted = _read_silence(await request.body())
        alert_id = request.parameters["id"]
        if "\0" in alert_id:
            raise AlertNotFound
        async with self._database.transaction() as connection:
            stored = await store.find_alert(connection, alert_id)
            if stored is None:
                raise AlertNotFound
            until = now() + timedelta(minutes=wanted.minutes)
            await store.silence(connection, (stored.alert.rule, stored.alert.subject), until)
        log.info("alert_silenced", rule_name=stored.alert.rule, subject=stored.subject, minutes=wanted.minutes)
        return json_answer(Silenced(stored.alert.rule, stored.subject, until))


def _read_silence(body: Body) -> SilenceWanted:
    try:
        return _decode_silence(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest([misfit_of(error).problem]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBody from None


def _paths() -> dict[str, Any]:
    def operation(operation_id: str, summary: str, answer: type[msgspec.Struct], *wrong: int) -> dict[str, Any]:
        responses = {"200": openapi.json_answer("The answer", openapi.reference(answer.__name__))}
        return {
            "tags": ["Alerts"],
            "operationId": operation_id,
            "summary": summary,
            "responses": responses | openapi.problem_answers(*wrong),
        }

    limit = openapi.query_parameter(
        "limit", f"How many resolved ones, at most {_LARGEST_LIMIT}; else {_USUAL_LIMIT}.", least=0, most=_LARGEST_LIMIT
    )
    silence = operation("silence_alert", "Silence an alert", Silenced, 404, 413, 422, 503)
    return {
        "/alerts": {
            "get": operation("show_alerts", "Open and recent alerts", AlertList, 422, 503) | {"parameters": [limit]}
        },
        "/alerts/rules": {"get": operation("show_alert_rules", "Alert rules and their mistakes", RuleList)},
        "/alerts/test": {"post": operation("test_alerts", "Send a test to every channel", ChannelsTested, 413)},
        "/alerts/{id}/silence": {
            "post": silence
            | {"requestBody": openapi.json_body(openapi.reference("SilenceWanted"), {"Two hours": {"minutes": 120}})},
            "parameters": [openapi.path_parameter("id", "The alert's id", "019ab3c4-0000-7000-8000-000000000000")],
        },
    }


def _schemas() -> dict[str, Any]:
    return openapi.struct_schemas([AlertList, RuleList, ChannelsTested, SilenceWanted, Silenced])


def part(surroundings: Surroundings) -> Part:
    """Alerting, as a part of the service."""
    settings, database = surroundings.settings, surroundings.database
    channels = channels_of(settings)
    sender = Sender(database, channels, now)
    evaluator = Evaluator(
        database,
        RuleFile(settings.alert_rules),
        channels,
        throttle=Throttle(settings.alert_damping_s, settings.alert_messages_per_hour),
        clock=now,
        grace_s=settings.alert_start_grace_s,
        wake=sender.wake,
    )

    async def work(stopping: asyncio.Event) -> None:
        working = [asyncio.create_task(each.run(stopping)) for each in (evaluator, sender)]
        try:
            await asyncio.gather(*working)
        finally:
            # When one fails, both are restarted.
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    def details() -> dict[str, Any]:
        mistakes = [str(each) for each in evaluator.rules.current.mistakes]
        wrong = {"mistakes": mistakes, "failing_rules": evaluator.failing}
        return {"alerts": {name: value for name, value in wrong.items() if value}} if any(wrong.values()) else {}

    return Part(
        routes=Alerts(database, evaluator, channels).routes,
        run=work,
        paths=_paths,
        schemas=_schemas,
        details=details,
    )
