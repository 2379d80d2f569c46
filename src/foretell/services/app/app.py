"""Assembles the app: the hot route first, then everything else."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog

import foretell
from foretell.broker import health
from foretell.broker.connect import connect
from foretell.broker.port import Broker
from foretell.contracts import queues
from foretell.domain.accounts import authentication, registration
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.accounts.throttle import AccountThrottle, LoginThrottle, SignupThrottle
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.errors import NotFound
from foretell.domain.migrations.run import migrate_when_possible
from foretell.domain.predictions.intake import Receipt, accept
from foretell.domain.predictions.opening import open_store
from foretell.domain.predictions.store import Submission
from foretell.inference.live import LiveRegistry
from foretell.inference.registry import Registry
from foretell.kit import deadline, metrics
from foretell.kit.asgi import Application, Message, Operations, Receive, Scope, Send
from foretell.kit.batching import Batcher
from foretell.kit.clock_check import check_clock
from foretell.kit.database import Database
from foretell.kit.errors import ForetellError, Misconfigured
from foretell.kit.head import answer_head
from foretell.kit.lifecycle import run, serve_http
from foretell.services.app import submit
from foretell.services.app.api import build_api, prepare_routes, surround
from foretell.services.app.authentication import Authenticator, follow_endings, record_uses
from foretell.services.app.changes import Changes
from foretell.services.app.checked_urls import CheckedUrls
from foretell.services.app.following import Following
from foretell.services.app.measures import count_accepted
from foretell.services.app.monitoring import Monitoring
from foretell.services.app.offers import Offers
from foretell.services.app.packages import Packages
from foretell.services.app.presentation import price_of
from foretell.services.app.publishing import Publishing
from foretell.services.app.queue_places import QueuePlaces
from foretell.services.app.settings import AppSettings, signing_secret
from foretell.services.app.state import AppState
from foretell.services.app.waiting import Waiting

log = structlog.get_logger()

#: Submissions that one transaction accepts at most.
_MAX_BATCH = 256
#: Every request is answered within 5 s, whatever the database does. A submission waits at most this long for
#: authentication and the batch before it, then for its own statement.
_STATEMENT_TIMEOUT_S = 2.0
_INTAKE_PATIENCE_S = 2.0
#: Other requests wait at most this long for a connection and their statements, ...
_TRANSACTION_TIMEOUT_S = 3.0
#: ... and at most this long in all, with authentication. The last commit may take another second.
_ALLOWED_S = 3.9
#: The database can't accept more waiting submissions in time; more get 503.
_MAX_WAITING = 4_000


class App:
    """Routes each request to the hot route, to the operational routes (health, metrics), or to the API."""

    def __init__(self, hot: Application, operations: Operations, api: Application) -> None:
        self._hot = hot
        self._operations = operations
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path == submit.PATH and scope["method"] == "POST":
                await self._hot(scope, receive, send)
                return
            if self._operations.handles(path):
                await self._operations(scope, receive, send)
                return
            with deadline.allowed(_ALLOWED_S) as allowance:

                async def send_and_lift(message: Message) -> None:
                    # The request counts as answered once the response begins; a stream may take longer.
                    allowance.lift()
                    await send(message)

                receive_body = _receiving(receive, allowance)
                if scope["method"] == "HEAD":
                    await answer_head(self._api, scope, receive_body, send_and_lift)
                else:
                    await self._api(scope, receive_body, send_and_lift)
            return
        await self._api(scope, receive, send)


def _receiving(receive: Receive, allowance: deadline.Allowance) -> Receive:
    """A `receive` that pauses the time limit until the body has arrived."""
    arrived = False

    async def receive_body() -> Message:
        nonlocal arrived
        if arrived:
            return await receive()
        with allowance.paused():
            message = await receive()
        arrived = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_body


async def serve(settings: AppSettings, instance: str, stopping: asyncio.Event) -> None:
    """Run the app until `stopping` is set."""
    async with AsyncExitStack() as stack:
        database = Database(
            settings.database_url,
            application=instance,
            statement_timeout_s=_STATEMENT_TIMEOUT_S,
            transaction_timeout_s=_TRANSACTION_TIMEOUT_S,
            pooler=settings.database_pooler,
        )
        stack.push_async_callback(database.close)
        passwords = Passwords()
        await migrate_when_possible(database, stopping)
        if stopping.is_set():
            return
        await _prepare_development_user(settings, database, passwords)
        broker = await connect(settings.broker_url, name=instance, prefix=settings.broker_prefix)
        stack.push_async_callback(broker.close)

        registry = LiveRegistry.installed(settings.models_dir, settings.data_dir)
        registry.log_unavailable()
        access_tokens = AccessTokens(signing_secret(settings), lifetime_s=settings.access_token_lifetime_s)
        changes = Changes(database)
        waiting = Waiting(database, changes.wake)
        following = Following(database)
        monitoring = Monitoring(settings)
        stack.push_async_callback(monitoring.close)
        checked_urls = CheckedUrls(settings.addresses())
        state = AppState(
            settings=settings,
            database=database,
            registry=registry,
            passwords=passwords,
            access_tokens=access_tokens,
            throttle=LoginThrottle(),
            signups=SignupThrottle(settings.signups_per_address),
            telegram_signups=SignupThrottle(settings.telegram_signups),
            webhook_sends=AccountThrottle(settings.webhook_sends_per_minute),
            exports=AccountThrottle(settings.exports_per_minute),
            authenticator=Authenticator(database, access_tokens),
            session_lifetime=settings.session_lifetime,
            waiting=waiting,
            following=following,
            changes=changes,
            checked_urls=checked_urls,
            queue_places=QueuePlaces(database),
            monitoring=monitoring,
            packages=Packages(settings),
            stopping=stopping,
        )
        store = open_store(database)
        publishing = Publishing(broker, store)
        stack.push_async_callback(publishing.close)

        async def accept_batch(submissions: list[Submission]) -> Sequence[Receipt | ForetellError]:
            outcomes = await accept(store, submissions)
            count_accepted(submissions, outcomes)
            return outcomes

        intake: Batcher[Submission, Receipt] = Batcher(
            accept_batch,
            max_batch=_MAX_BATCH,
            max_waiting=_MAX_WAITING,
            patience_s=_INTAKE_PATIENCE_S,
            observe_size=metrics.BATCH_ITEMS.labels("intake").observe,
        )
        hot = submit.Submit(
            offers=Offers(registry, lambda package: price_of(package, registry, settings)),
            authenticator=state.authenticator,
            intake=intake,
            publishing=publishing,
            waiting=waiting,
            database=database,
            stopping=stopping,
            patience_s=_INTAKE_PATIENCE_S,
            allowed_s=_ALLOWED_S,
            max_body_bytes=settings.max_body_bytes,
            expires_after_s=settings.prediction_expires_s,
            checked_urls=checked_urls,
        ).route
        operations = _operations(instance, settings, database, broker, registry)
        api = build_api(state)
        prepare_routes(api)
        application = surround(App(hot, operations, api), settings, hot=[hot])
        background = [
            asyncio.create_task(_prepare_queues(broker, registry)),
            asyncio.create_task(registry.watch(lambda: _prepare_queues(broker, registry))),
            asyncio.create_task(waiting.listen(broker.subscribe(queues.PREDICTION_FINISHED))),
            asyncio.create_task(waiting.look()),
            asyncio.create_task(following.listen(broker.subscribe(queues.EVENTS_WRITTEN))),
            asyncio.create_task(following.look()),
            asyncio.create_task(changes.look()),
            asyncio.create_task(follow_endings(state.authenticator, database, settings.access_token_lifetime_s)),
        ]
        recording = asyncio.create_task(record_uses(state.authenticator, database, state.session_lifetime, stopping))
        try:
            await serve_http(application, settings, stopping, application.direct)
        finally:
            stopping.set()
            for task in background:
                task.cancel()
            await asyncio.gather(recording, *background, return_exceptions=True)


def _operations(
    instance: str, settings: AppSettings, database: Database, broker: Broker, registry: LiveRegistry
) -> Operations:
    return Operations(
        "app",
        instance=instance,
        version=foretell.__version__,
        checks={
            "database": database.ping,
            "broker": partial(health.check, broker),
            "clock": partial(check_clock, database),
        },
        # Not the broker: without it, submissions are still accepted and wait in the database.
        needed_to_serve=["database"],
        details=lambda: {
            "models_stamp": registry.followed,
            "unavailable": {package.name: package.reason for package in registry.unavailable},
        },
        metrics_token=settings.metrics_token,
    )


async def _prepare_queues(broker: Broker, registry: Registry) -> None:
    """Declare the queues, so that a task that is published before any worker has run is not returned."""
    names = {queues.RESULTS} | {queues.tasks_queue(package.queue) for package in registry}
    for name in sorted(names | {queues.TASKS}):
        while True:
            try:
                await broker.ensure_queue(name)
                break
            except ForetellError:
                await asyncio.sleep(1.0)


async def _prepare_development_user(settings: AppSettings, database: Database, passwords: Passwords) -> None:
    """In development, create the user `test`. In production, refuse to start while it can log in."""
    if settings.production:
        if await authentication.has_development_user(database, passwords):
            raise Misconfigured(
                "The user test with the password test exists, and this is production. Change its password or close "
                "the account: foretell users password test, foretell users close test."
            )
        return
    async with database.snapshot() as connection:
        try:
            await registration.find_user(connection, registration.DEVELOPMENT_USERNAME)
        except NotFound:
            log.info("development_user_created", username=registration.DEVELOPMENT_USERNAME)
        else:
            return
    password_hash = await passwords.hash(registration.DEVELOPMENT_PASSWORD)
    async with database.transaction() as connection:
        await registration.ensure_development_user(
            connection, password_hash=password_hash, grant_credits=settings.signup_credits
        )


def main() -> None:
    """Run the app in the foreground, with its settings from the environment."""
    settings = AppSettings()
    run("app", settings, lambda instance, stopping: serve(settings, instance, stopping))
