"""`foretell users …`, as Typer reads it; what the commands do is in `operating.py`."""

from enum import StrEnum
from typing import Annotated

import typer

users_app = typer.Typer(help="Accounts and credits, directly in the database.", no_args_is_help=True)


class RoleName(StrEnum):
    """What an account may do."""

    user = "user"
    operator = "operator"


@users_app.command("add")
def users_add(
    name: str,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from the input.")] = False,
    credits: Annotated[int, typer.Option("--credits", min=0, help="What to grant at once.")] = 0,
    operator: Annotated[bool, typer.Option("--operator", help="May do what operators may.")] = False,
) -> None:
    """Create an account."""
    from foretell.cli import operating

    operating.add_user(name, password_stdin=password_stdin, credits=credits, operator=operator)


@users_app.command("list")
def users_list(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every account with its credits."""
    from foretell.cli import operating

    operating.list_users(as_json=as_json)


@users_app.command("grant")
def users_grant(
    name: str,
    credits: int,
    reference: Annotated[str | None, typer.Option(help="An id in your books; the same one counts once.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Give credits to somebody."""
    from foretell.cli import operating

    operating.grant(name, credits, reference=reference, note=note)


@users_app.command("refund-stars")
def users_refund_stars(
    charge_id: Annotated[str, typer.Argument(help="Telegram's id of the charge: telegram:ID in the transactions.")],
    even_if_spent: Annotated[bool, typer.Option("--even-if-spent", help="Take only what is still there.")] = False,
) -> None:
    """Refund a payment in Telegram Stars: its credits are taken back, and Telegram (TELEGRAM_TOKEN) returns the Stars.

    Again after a failure, it does what is left to do.
    """
    from foretell.cli import operating

    operating.refund_stars(charge_id, even_if_spent=even_if_spent)


@users_app.command("password")
def users_password(
    name: str,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from the input.")] = False,
) -> None:
    """Give somebody a new password. Their sessions end."""
    from foretell.cli import operating

    operating.set_password(name, password_stdin=password_stdin)


@users_app.command("close")
def users_close(name: str) -> None:
    """Close an account: no log-in and no API key works any more. What it owns stays."""
    from foretell.cli import operating

    operating.close_account(name)


@users_app.command("block")
def users_block(name: str, reason: Annotated[str | None, typer.Option(help="Why.")] = None) -> None:
    """Let nobody in to an account: sessions, tokens, keys and chats stop within a second. What it owns stays."""
    from foretell.cli import operating

    operating.block(name, reason=reason)


@users_app.command("unblock")
def users_unblock(name: str, reason: Annotated[str | None, typer.Option(help="Why.")] = None) -> None:
    """Let an account in again that was blocked or closed."""
    from foretell.cli import operating

    operating.unblock(name, reason=reason)


@users_app.command("role")
def users_role(name: str, role: Annotated[RoleName, typer.Argument(help="user or operator")]) -> None:
    """Make somebody an operator, who sees and steers everything on the page, or a user again."""
    from foretell.cli import operating

    operating.set_role(name, "operator" if role == RoleName.operator else "user")
