"""Routes for the installation's own bot, on behalf of chats. `BotOnly` refuses all other callers.

They are not in the OpenAPI document, because other callers get 404. docs/telegram.md describes them.
"""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Response

from foretell.contracts import telegram as contract
from foretell.domain.accounts import telegram, telegram_payments
from foretell.domain.accounts.passwords import unmatchable_hash
from foretell.domain.accounts.telegram import Link
from foretell.domain.accounts.telegram_payments import Payment
from foretell.domain.errors import Forbidden, NotFound
from foretell.domain.notifications import endpoints
from foretell.kit.clock import now
from foretell.services.app.dependencies import PlainNumber, State
from foretell.services.app.state import AppState

router = APIRouter(include_in_schema=False)

#: Every path of this module; paths below them are only for the bot, too.
PATHS = (
    "/telegram/bot",
    "/telegram/accounts",
    "/telegram/links",
    "/telegram/tokens",
    "/telegram/payments",
    "/telegram/refunds",
)
#: The throttle's key for all sign-ups in Telegram, which come from one address, the bot's.
_SIGNUPS = "telegram"


@router.put("/telegram/bot", status_code=204)
async def tell_name(told: contract.BotName, state: State) -> None:
    """Set the name of the bot, for links that open it."""
    async with state.database.transaction() as connection:
        await telegram.set_bot_name(connection, told.username.removeprefix("@"))


@router.post("/telegram/accounts", status_code=201)
async def sign_up(wanted: contract.NewChatAccount, response: Response, state: State) -> contract.ChatAccount:
    """The account of a chat: 201 if it was created, 200 if it existed. Throttled like registration."""
    linked = await _known(state, wanted.chat_id)
    if linked is None:
        if not state.settings.registration_open:
            raise Forbidden("Registration is closed here. Ask the operator for an account.")
        state.telegram_signups.attempt(_SIGNUPS)
        async with state.database.transaction() as connection:
            linked = await telegram.sign_up(
                connection,
                wanted.chat_id,
                password_hash=unmatchable_hash(),
                grant_credits=state.settings.signup_credits,
                name=wanted.name,
            )
            await endpoints.add_telegram(connection, linked.user.id, linked.chat_id, now())
    response.status_code = 201 if linked.created else 200
    return _account(linked)


@router.post("/telegram/links")
async def link(wanted: contract.NewChatLink, state: State) -> contract.ChatAccount:
    """Link a chat to the account that made the code. A repeated call with the same code has the same answer."""
    async with state.database.transaction() as connection:
        linked = await telegram.link(connection, wanted.chat_id, wanted.code, name=wanted.name)
        await endpoints.add_telegram(connection, linked.user.id, linked.chat_id, now())
    return _account(linked)


@router.delete("/telegram/links/{chat_id}", status_code=204)
async def unlink(chat_id: Annotated[int, Path(ge=-(2**53), le=2**53), PlainNumber], state: State) -> None:
    """Unlink a chat; 404 if it was not linked."""
    async with state.database.transaction() as connection:
        user_id = await telegram.unlink(connection, chat_id)
        await endpoints.remove_telegram(connection, user_id, chat_id)


@router.post("/telegram/tokens")
async def take_token(chat: contract.ChatOf, response: Response, state: State) -> contract.ChatToken:
    """An access token of the account that a chat is linked to, valid while it is. It has no operator rights."""
    async with state.database.snapshot() as connection:
        user, link = await telegram.find_link(connection, chat.chat_id)
    # No operator rights, so that a stolen chat or bot does not give access to the whole installation.
    access_token, expires_in_s = state.access_tokens.issue(replace(user, role="user"), link)
    response.headers["Cache-Control"] = "no-store"
    return contract.ChatToken(access_token=access_token, expires_in=expires_in_s, user_id=user.id)


@router.post("/telegram/payments")
async def pay(told: contract.NewPayment, state: State) -> contract.Payment:
    """Add credits that were paid for. A charge that is reported twice is booked once."""
    async with state.database.transaction() as connection:
        payment = await telegram_payments.pay(
            connection, chat_id=told.chat_id, charge_id=told.charge_id, stars=told.stars, credits=told.credits
        )
    return _payment(payment)


@router.post("/telegram/refunds")
async def refund(told: contract.NewRefund, state: State) -> contract.Payment:
    """Take back the unspent credits of a charge whose Stars were refunded."""
    async with state.database.transaction() as connection:
        return _payment(await telegram_payments.refund(connection, told.charge_id, even_if_spent=True))


async def _known(state: AppState, chat_id: int) -> Link | None:
    """The existing link of a chat, so that a double tap creates no second account and is throttled once."""
    async with state.database.snapshot() as connection:
        try:
            return await telegram.find(connection, chat_id)
        except NotFound:
            return None


def _account(linked: Link) -> contract.ChatAccount:
    return contract.ChatAccount(chat_id=linked.chat_id, user_id=linked.user.id, username=linked.user.username)


def _payment(payment: Payment) -> contract.Payment:
    return contract.Payment.model_validate(payment)
