"""Credits for Telegram Stars: bought once, however often it is told."""

import asyncio

import pytest
from tests.integration.bot.conftest import RunningBot, Start, ended
from tests.integration.bot.test_oddities import signed_up
from tests.telegram.app_stand_in import problem
from tests.telegram.people import Person

OFFERS = ((500, 250), (2000, 900))


@pytest.fixture
async def shop(start_bot: Start) -> RunningBot:
    return await start_bot(stars_offers=OFFERS)


async def buy(person: Person) -> str:
    """Buy the small offer; returns the charge."""
    await person.types("/balance")
    await person.taps(await person.sees("Recent transactions"), "500 credits for 250 stars")
    charge = await person.pays(await person.sees("500 credits"))
    assert charge is not None
    return charge


async def test_credits_are_bought_and_told_twice_count_once(shop: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    charge = await buy(ada)
    await ada.sees("Thank you! Added to your account: 500 credits.")
    assert shop.app.linked[ada.id].available == 600
    invoice = next(post for post in shop.telegram.posts_in(ada.id) if post.invoice is not None)
    await ada.tells_of_payment(invoice, charge)
    await ada.types("/balance")
    balance = await ada.sees("You have 600 credits.")
    assert "+500 · top-up" in balance.text
    assert sum("Thank you!" in post.text for post in shop.telegram.posts_in(ada.id)) == 1


async def test_a_refund_of_stars_is_called_so(shop: RunningBot, ada: Person, vera: Person) -> None:
    for person, before, said in ((ada, "Recent", "−500 · refund of Stars"), (vera, "операции", "−500 · возврат звёзд")):
        await signed_up(person)
        account = shop.app.linked[person.id]
        account.move("top_up", 500, 500, 0, reference="telegram:charge")
        account.move(
            "adjustment", -500, -500, 0, reference="telegram-refund:charge", note="refund of 250 Telegram Stars"
        )
        account.move("adjustment", -7, -7, 0, reference="telegram")
        await person.types("/balance")
        text = (await person.sees(before)).text.replace("-", "−")
        assert said in text
        assert f"−7 · {'adjustment' if person is ada else 'поправка'}" in text


async def test_offers_in_russian(shop: RunningBot, vera: Person) -> None:
    await signed_up(vera)
    await vera.types("/help")
    await vera.sees("Кредиты можно купить за звёзды")
    await vera.types("/balance")
    assert (await vera.sees("У вас 100 кредитов")).button("2 000 кредитов за 900 звёзд".replace("2 0", "2\u00a00"))


async def test_an_app_that_is_away_counts_the_payment_later(shop: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    shop.app.instead = lambda request: problem(503, "unavailable") if request.url.path == "/telegram/payments" else None
    await buy(ada)
    await ada.sees("Thank you! The payment has arrived.")
    async with ended(shop):
        shop.app.instead = lambda request: None
    await ada.sees("Thank you! Added to your account: 500 credits.")
    assert shop.app.linked[ada.id].available == 600


async def test_an_offer_that_has_ended_is_not_paid(shop: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/balance")
    balance = await ada.sees("Recent transactions")
    await ada.taps(balance, "500 credits for 250 stars")
    invoice = await ada.sees("500 credits")
    object.__setattr__(shop.settings, "stars_offers", OFFERS[1:])
    assert await ada.pays(invoice) is None
    assert "This offer has ended" in (await ada.taps(balance, "500 credits"))["text"]
    assert shop.app.linked[ada.id].available == 100


async def test_whoever_has_no_account_any_more_does_not_pay(shop: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/balance")
    await ada.taps(await ada.sees("Recent transactions"), "500 credits for 250 stars")
    invoice = await ada.sees("500 credits")
    del shop.app.linked[ada.id]
    assert shop.bot is not None
    shop.bot.parts.accounts._clients.clear()
    assert await ada.pays(invoice) is None


async def test_a_payment_does_not_wait_behind_other_messages(shop: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/balance")
    await ada.taps(await ada.sees("Recent transactions"), "500 credits for 250 stars")
    invoice = await ada.sees("500 credits")
    async with ended(shop):
        for _ in range(12):
            await ada.types("/help")
        before = shop.telegram.unconfirmed
        paying = asyncio.create_task(ada.pays(invoice))
        await shop.telegram.until(lambda: shop.telegram.unconfirmed > before, "the payment to begin")
    assert await paying is not None
    await ada.sees("Thank you!")
    await ada.sees("What I can do")
    methods = [method for method, given in shop.telegram.calls]
    helped = next(place for place, (_, given) in enumerate(shop.telegram.calls) if "What I can do" in str(given))
    assert methods.index("answerPreCheckoutQuery") < helped


async def test_an_answer_that_comes_too_late_says_that_nobody_has_paid(shop: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    of = {"currency": "XTR", "total_amount": 250, "invoice_payload": "credits:500:250"}
    await shop.telegram.happen(pre_checkout_query={"id": "of yesterday", "from": ada.user, **of})
    await ada.sees("I answered too late, so the payment did not take place.")
    assert shop.app.charges == {}
