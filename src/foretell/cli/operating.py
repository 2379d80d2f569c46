"""users and audit, with direct access to the database of the installation."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, cast

from rich.status import Status

from foretell.cli import stars
from foretell.cli.output import count, print_json, remarks, say, show, table
from foretell.domain.accounts import registration
from foretell.domain.accounts.identity import Role, User
from foretell.domain.accounts.passwords import Passwords, check_password
from foretell.domain.accounts.telegram_payments import Payment
from foretell.domain.accounts.usernames import username_key
from foretell.domain.credits import ledger
from foretell.domain.errors import CreditsSpent, DuplicateReference
from foretell.domain.migrations.run import migrate
from foretell.domain.operators import journal, users
from foretell.domain.operators.journal import Actor
from foretell.domain.predictions.audit import Finding, Progress
from foretell.domain.predictions.audit import audit as find_what_is_wrong
from foretell.kit.database import Database
from foretell.kit.drivers import Pooler
from foretell.kit.errors import ForetellError, Misconfigured, Unavailable
from foretell.local.installation import Installation

#: Time limit of one step of an audit, which takes about a second per million predictions.
_AUDIT_TIMEOUT_S = 1800.0
#: Additional processes that PostgreSQL may use for an audit.
_AUDIT_WORKERS = 4
_PAGE = 500


class NoDatabase(ForetellError):
    """There is no database at {place} yet. Start Foretell once, or set FORETELL_DATABASE_URL."""

    code = "no_database"


class RestoreUnfinished(ForetellError):
    """A restore was broken off here. Restore again, or start Foretell: either finishes it."""

    code = "restore_unfinished"


class AuditTooLong(ForetellError):
    """A step of the audit did not end within {minutes} minutes. Nothing was found wrong, and nothing proved: try when the database is less busy, or on a copy of it."""  # noqa: E501

    code = "audit_too_long"


class NoPassword(ForetellError):
    """No password was given. Type one at the prompt, or send one to --password-stdin."""

    code = "no_password"


def database_url() -> str:
    """`FORETELL_DATABASE_URL`, or the URL of the running engine, or the database in the data folder.

    Raises `NoDatabase` if the embedded database does not exist, instead of creating an empty one.
    """
    installation = Installation.from_environment()
    if installation.restore_plan.exists():
        raise RestoreUnfinished
    url = os.environ.get("FORETELL_DATABASE_URL", "")
    if not url:
        record = installation.read()
        url = record.database_url if record else f"sqlite:///{installation.data_dir / 'foretell.db'}"
    installation.check_not_moved(url)
    path = url.removeprefix("sqlite:///")
    if path != url and not os.path.exists(path):
        raise NoDatabase(place=path)
    return url


def database_pooler() -> Pooler:
    """`FORETELL_DATABASE_POOLER`. Raises `Misconfigured`."""
    pooler = os.environ.get("FORETELL_DATABASE_POOLER", "")
    if pooler not in ("", "transaction"):
        raise Misconfigured("FORETELL_DATABASE_POOLER must be empty or transaction.")
    return cast(Pooler, pooler)


@asynccontextmanager
async def _open_database() -> AsyncIterator[Database]:
    database = Database(database_url(), application="foretell command line", pool_size=1, pooler=database_pooler())
    try:
        await migrate(database)
        yield database
    finally:
        await database.close()


def _with_database(work: Callable[[Database], Awaitable[None]]) -> None:
    async def run() -> None:
        async with _open_database() as database:
            await work(database)

    quiet_logs()
    asyncio.run(run())


def quiet_logs() -> None:
    """Silence log lines, which are not part of the output; errors are raised to the caller."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def add_user(name: str, *, password_stdin: bool, credits: int, operator: bool) -> None:
    """Create an account."""
    username_key(name)
    password = _read_password(from_stdin=password_stdin)
    check_password(password)

    async def work(database: Database) -> None:
        passwords = Passwords()
        try:
            password_hash = await passwords.hash(password)
        finally:
            passwords.close()
        role: Role = "operator" if operator else "user"
        async with database.transaction() as connection:
            user = await users.add(
                connection, _actor(), username=name, password_hash=password_hash, credits=credits, role=role
            )
        say(f"Created the {user.role} {user.username} with {count(credits, 'credit')}.")

    _with_database(work)


def set_password(name: str, *, password_stdin: bool) -> None:
    """Change the password of an account; its sessions end."""
    password = _read_password(from_stdin=password_stdin)
    check_password(password)

    async def work(database: Database) -> None:
        passwords = Passwords()
        try:
            password_hash = await passwords.hash(password)
        finally:
            passwords.close()
        async with database.transaction() as connection:
            user = await registration.find_user(connection, name)
            await users.set_password(connection, _actor(), user.id, password_hash)
        say(f"{user.username} has a new password, and every session that was open has ended.")

    _with_database(work)


def close_account(name: str) -> None:
    """Close an account."""

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            user = await registration.find_user(connection, name)
            await users.block(connection, _actor(), user.id)
        say(f"The account {user.username} is closed. What it owns stays.")

    _with_database(work)


def block(name: str, *, reason: str | None) -> None:
    """Block an account."""

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            user = await registration.find_user(connection, name)
            await users.block(connection, _actor(), user.id, reason=reason)
        say(f"{user.username} is blocked: sessions, tokens, keys and chats stop within a second.")

    _with_database(work)


def unblock(name: str, *, reason: str | None) -> None:
    """Unblock an account."""

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            user = await registration.find_user(connection, name)
            await users.unblock(connection, _actor(), user.id, reason=reason)
        say(f"{user.username} may sign in again.")

    _with_database(work)


def set_role(name: str, role: Role) -> None:
    """Make a user an operator, or a user again."""

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            user = await registration.find_user(connection, name)
            await users.set_role(connection, _actor(), user.id, role)
        say(f"{user.username} is {'an operator' if role == 'operator' else 'a user'} now.")

    _with_database(work)


def write_down(act: str, subject: str, after: dict[str, Any]) -> None:
    """Write an action outside of the database to the journal. Raises `NoDatabase`, `Unavailable`."""

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            await journal.write(connection, _actor(), act, subject, after=after)

    _with_database(work)


def _actor() -> Actor:
    """The user of this command, by the name in the operating system."""
    from getpass import getuser
    from socket import gethostname

    try:
        name = getuser()
    except (OSError, KeyError):
        # In a container, a user id may have no name.
        name = str(os.getuid()) if hasattr(os, "getuid") else "somebody"
    return Actor(None, f"command line: {name}", gethostname())


def _read_password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        from getpass import getpass

        try:
            password = getpass("Password: ")
            if password and getpass("Once more: ") != password:
                raise NoPassword("The two passwords differ; nothing was changed.")
        except EOFError:
            password = ""
    if not password:
        raise NoPassword
    return password


def list_users(*, as_json: bool) -> None:
    """Show every account with its credits."""

    async def work(database: Database) -> None:
        rows: list[tuple[User, ledger.Balance]] = []
        async with database.snapshot() as connection:
            last = None
            while users := await registration.list_users(connection, limit=_PAGE, after_id=last):
                rows += [(user, await ledger.balance(connection, user.id)) for user in users]
                last = users[-1].id
        if as_json:
            print_json([{**asdict(user), **asdict(balance)} for user, balance in rows])
            return
        made = table(["name", "role", "available", "held", "since", "id"], right=["available", "held"])
        for user, balance in rows:
            name = user.username if user.active else f"{user.username} (closed)"
            since = f"{user.created_at:%Y-%m-%d}"
            made.add_row(name, user.role, str(balance.available), str(balance.held), since, str(user.id))
        show(made)

    _with_database(work)


def grant(name: str, credits: int, *, reference: str | None, note: str | None) -> None:
    """Grant credits to an account."""

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            user = await registration.find_user(connection, name)
            said = "Granted"
            try:
                balance = await users.grant(connection, _actor(), user.id, credits, reference=reference, note=note)
            except DuplicateReference:
                # Repeating the same grant after an unknown outcome is fine; another kind or amount is an error.
                before = await ledger.by_reference(connection, user.id, reference or "")
                if before is None or (before.kind, before.amount) != ("grant", credits):
                    raise
                said = "Granted before, by this reference:"
                balance = await ledger.balance(connection, user.id)
        say(f"{said} {count(credits, 'credit')} to {user.username}, who has {balance.available} available now.")

    _with_database(work)


def refund_stars(charge_id: str, *, even_if_spent: bool) -> None:
    """Take back the credits of a payment in Telegram Stars, and then return the Stars."""
    payments: list[Payment] = []
    earlier: list[Payment] = []

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            payment, was_before = await users.refund_stars(connection, _actor(), charge_id, even_if_spent=even_if_spent)
            payments.append(payment)
            earlier.extend([payment] if was_before else [])

    try:
        _with_database(work)
    except CreditsSpent as error:
        raise CreditsSpent(f"{error.message} Nothing was done. To refund it all the same: --even-if-spent") from error
    (payment,) = payments
    taken = payment.refunded_credits or 0
    spent = payment.credits - taken
    rest = f"; {spent} had been spent." if spent else "."
    if earlier:
        say(f"{count(taken, 'credit')} {'was' if taken == 1 else 'were'} taken back before{rest}")
    else:
        say(f"Took {count(taken, 'credit')} back{rest}")
    token = stars.bot_token()
    if not token:
        raise stars.StarsNotReturned(reason="TELEGRAM_TOKEN is not set here")
    # Stars are paid in a private chat, whose id is that of the person.
    new = stars.return_stars(token, payment.chat_id, charge_id)
    say(f"{'Gave back' if new else 'Telegram gave back before:'} {count(payment.stars, 'Star')}.")


def audit(*, as_json: bool) -> None:
    """Check that states and credits agree; exits with 1 if they do not."""
    findings: list[Finding] = []
    tell: Callable[[Progress], None] = _no_progress

    async def work(database: Database) -> None:
        patient = database.with_statement_timeout(_AUDIT_TIMEOUT_S)
        started = time.monotonic()
        try:
            async with patient.snapshot() as connection:
                workers = min(os.cpu_count() or 1, _AUDIT_WORKERS)
                findings.extend(await find_what_is_wrong(connection, parallel_workers=workers, tell=tell))
        except Unavailable as error:
            if time.monotonic() - started >= _AUDIT_TIMEOUT_S:
                raise AuditTooLong(minutes=round(_AUDIT_TIMEOUT_S / 60)) from error
            raise
        finally:
            await patient.close()

    if as_json:
        _with_database(work)
    else:
        with remarks.status("Looking through every prediction and every movement …") as status:
            tell = partial(_show_progress, status)
            _with_database(work)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif not findings:
        say("All is right: every state, hold, charge and wallet fits.")
    else:
        _show_findings(findings)
    if findings:
        sys.exit(1)


def _no_progress(_: Progress) -> None:
    """No progress, for the output for programs."""


def _show_progress(status: Status, progress: Progress) -> None:
    rows = "" if progress.rows is None else f" ({progress.rows:,} rows in all)"
    status.update(f"Step {progress.step} of {progress.steps}: {progress.doing}{rows} …")


def _show_findings(findings: list[Finding]) -> None:
    made = table(["check", "what", "where", "expected", "found"])
    for finding in findings:
        where = "\n".join(f"{name} {value}" for name, value in finding.ids.items())
        made.add_row(finding.check, finding.what, where, finding.expected, finding.found)
    show(made)
    totals = {finding.check: finding.total for finding in findings}
    say(
        f"{count(sum(totals.values()), 'finding')}: " + ", ".join(f"{check} {total}" for check, total in totals.items())
    )
