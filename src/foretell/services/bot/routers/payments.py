"""Credits for Telegram Stars: invoice, pre-checkout query, and payment."""

from contextlib import suppress

import structlog

from foretell.client import ApiError, Unreachable
from foretell.services.bot.accounts import NotLinked
from foretell.services.bot.routing import Router
from foretell.services.bot.storage.payments import Payment
from foretell.services.bot.talk import Talk
from foretell.services.bot.telegram.api import TelegramAway, TelegramError, TokenRefused, TooManyMessages
from foretell.services.bot.telegram.types import SuccessfulPayment
from foretell.services.bot.words import Marked

router = Router()
log = structlog.get_logger()

_CURRENCY = "XTR"


def _payload(credits: int, stars: int) -> str:
    return f"credits:{credits}:{stars}"


def _read(payload: str) -> tuple[int, int] | None:
    """Credits and stars in the payload of our invoices; None for any other payload."""
    name, _, rest = payload.partition(":")
    credits, _, stars = rest.partition(":")
    return (int(credits), int(stars)) if name == "credits" and credits.isdecimal() and stars.isdecimal() else None


@router.button("buy")
async def buy(talk: Talk, arguments: list[str]) -> None:
    """Send the invoice of the offer that was tapped."""
    words = talk.words
    offer = tuple(int(each) for each in arguments if each.isdecimal())
    if offer not in talk.parts.settings.stars_offers:
        await talk.answer_tap(words.plain("stars.offer_ended"), alert=True)
        return
    if not talk.private:
        await talk.answer_tap(words.plain("stars.private"), alert=True)
        return
    # Raises `NotLinked`, so that only people with an account can pay.
    await talk.parts.accounts.account_of(talk.user_id)
    credits, stars = offer
    named = words.count("credits", credits)
    await talk.parts.sender.message(
        "sendInvoice",
        talk.chat_id,
        answering=True,
        title=words.plain("stars.title", credits=named),
        description=words.plain("stars.description", credits=named),
        payload=_payload(credits, stars),
        currency=_CURRENCY,
        prices=[{"label": named, "amount": stars}],
    )


@router.update
async def asked_before(talk: Talk) -> bool:
    """Answer a pre-checkout query within 10 s: yes for an offer of ours and a person with an account."""
    query = talk.update.pre_checkout_query
    if query is None:
        return False
    offer, problem = _read(query.invoice_payload), None
    if (
        query.currency != _CURRENCY
        or offer is None
        or offer not in talk.parts.settings.stars_offers
        or offer[1] != query.total_amount
    ):
        problem = "stars.offer_ended"
    else:
        try:
            await talk.parts.accounts.account_of(talk.user_id)
        except NotLinked:
            problem = "start.first"
        except (ApiError, Unreachable):
            problem = "error.away"
    try:
        await talk.parts.sender.call(
            "answerPreCheckoutQuery",
            pre_checkout_query_id=query.id,
            ok=problem is None,
            error_message=None if problem is None else talk.words.plain(problem),
        )
    except (TelegramAway, TokenRefused, TooManyMessages):
        raise
    except TelegramError as error:
        # The bot or Telegram was away for more than 10 s: nobody has paid.
        log.info("pre_checkout_too_late", reason=error.message)
        await talk.say(talk.words("stars.too_late"))
    return True


@router.update
async def paid(talk: Talk) -> bool:
    """Store a payment, then report it to the app, now or as soon as the app answers."""
    message = talk.update.message
    if message is None or message.successful_payment is None:
        return False
    payment = _payment(talk, message.successful_payment)
    if payment is None:
        return True
    await talk.parts.payments.add(payment)
    with suppress(ApiError, Unreachable):
        await talk.parts.accounts.pay(payment.user_id, payment.charge_id, payment.stars, payment.credits)
        await talk.parts.payments.counted(payment.charge_id)
    known = await talk.parts.payments.find(payment.charge_id)
    if known is not None and known.thanked:
        # Telegram may report a payment twice.
        return True
    is_counted = known is not None and known.counted
    key = "stars.thanks" if is_counted else "stars.later"
    await talk.say(talk.words(key, credits=Marked(talk.words.count("credits", payment.credits))))
    if is_counted:
        await talk.parts.payments.thanked(payment.charge_id)
    return True


def _payment(talk: Talk, paid: SuccessfulPayment) -> Payment | None:
    offer = _read(paid.invoice_payload)
    if offer is None or paid.currency != _CURRENCY:
        log.error("payment_not_understood", charge_id=paid.telegram_payment_charge_id, amount=paid.total_amount)
        return None
    return Payment(paid.telegram_payment_charge_id, talk.user_id, talk.chat_id, paid.total_amount, offer[0])
