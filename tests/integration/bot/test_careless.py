"""What people run into: a model that was removed, two things at once, groups that change, commands with a typo."""

import pytest
from tests.integration.bot.conftest import RunningBot
from tests.integration.bot.test_conversations import ENGLISH, FLIGHT, fill_in_a_flight
from tests.integration.bot.test_oddities import GROUP, signed_up
from tests.telegram.people import Person
from tests.telegram.rules import Refusal, bad

from foretell.services.bot.filling import form


async def test_a_model_that_was_removed_keeps_the_answers_and_says_so(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    await ada.types("/predict")
    which = await ada.sees("Choose a model")
    await ada.taps(which, "Flight delay")
    question = await ada.sees("question 1 of 4")
    model = bot.app.models.pop("flight-delay")
    assert bot.bot is not None
    bot.bot.parts.models.forget()
    away = "This model is not available right now. Your answers are kept"
    await ada.types("AA")
    await ada.sees(away)
    assert away in (await ada.taps(question, "American Airlines"))["text"]
    await ada.types("/blance")
    await ada.sees("I don't know this command. For those I know: /help")
    # The list of models is of a moment ago.
    assert "no longer available" in (await ada.taps(which, "Flight delay"))["text"]
    bot.app.models["flight-delay"] = model
    await ada.types("AA")
    await ada.taps(await ada.sees("question 2 of 4"), "← Back")
    bot.app.models.pop("flight-delay")
    bot.bot.parts.models.forget()
    await ada.taps(await ada.sees("question 1 of 4"), "✖ Cancel")
    await ada.sees("The form is closed")
    assert not [post for post in bot.telegram.posts_in(ada.id) if "went wrong" in post.text]


async def test_a_text_for_another_model_leaves_the_form_as_it_is(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    summary = await fill_in_a_flight(ada, ENGLISH)
    await ada.types("/predict What a lovely flight")
    await ada.sees("Working on it")
    await ada.taps(summary, "✔ Send")
    await bot.telegram.until(lambda: len(bot.app.predictions) == 2, "both predictions")
    assert [each["input"] for each in bot.app.predictions.values()] == [{"text": "What a lovely flight"}, FLIGHT]


async def test_a_question_in_a_group_says_how_to_answer_and_replies(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    ada.joins(GROUP)
    await ada.types("/predict", chat=GROUP)
    which = await ada.sees("Choose a model", chat=GROUP)
    await ada.taps(which, "Flight delay")
    question = await ada.sees("question 1 of 4", chat=GROUP)
    assert "answer by replying to this message" in question.text
    assert question.reply_to == which.message_id
    await ada.types("/predict")
    await ada.taps(await ada.sees("Choose a model"), "Flight delay")
    assert "replying" not in (await ada.sees("question 1 of 4")).text


@pytest.mark.parametrize(
    "refusal",
    [
        bad("group chat was upgraded to a supergroup chat"),
        bad("chat not found"),
        bad("not enough rights to send text messages to the chat"),
    ],
    ids=["became a supergroup", "was deleted", "may not write"],
)
async def test_a_result_for_a_group_that_changed_is_told_in_private(
    bot: RunningBot, ada: Person, refusal: Refusal
) -> None:
    await signed_up(ada)
    ada.joins(GROUP)
    await ada.types("/predict What a flight", chat=GROUP)
    await ada.sees("Working on it", chat=GROUP)
    asked = await bot.asked()
    bot.telegram.refuses = lambda method, given: refusal if given.get("chat_id") == GROUP else None
    await bot.finish(asked["id"], {"label": "positive"})
    await ada.sees("Positive")


async def test_a_command_that_was_corrected_is_asked_for_again(bot: RunningBot, ada: Person) -> None:
    await signed_up(ada)
    command = await ada.types("/blance")
    await ada.sees("I don't know this command")
    await ada.edits(command, "/balance")
    await ada.sees("I do not see changes of a message")
    ada.joins(GROUP)
    command = await ada.types("/blance", chat=GROUP)
    await ada.edits(command, "/balance")
    await ada.types("/help")
    await ada.sees("What I can do")
    assert bot.telegram.posts_in(GROUP) == []


async def test_a_double_tap_begins_one_form(bot: RunningBot, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    await signed_up(ada)
    await ada.types("/predict")
    which = await ada.sees("Choose a model")
    taps = [await ada.begin_tap(which, "Flight delay") for _ in range(2)]
    assert [(await ada.answer_to(tap)).get("text") for tap in taps] == [None, "The form is open already, below."]
    question = await ada.sees("question 1 of 4")
    assert sum("question 1 of 4" in post.text for post in bot.telegram.posts_in(ada.id)) == 1
    # Another model of the same list, and the same one after an answer, are no double taps.
    await ada.taps(which, "Sentiment")
    await ada.taps(which, "Flight delay")
    again = await ada.sees_new("question 1 of 4", after=question)
    await ada.taps(again, "American Airlines")
    await ada.taps(which, "Flight delay")
    again = await ada.sees_new("question 1 of 4", after=again)
    # Somebody who has deleted the question taps again some time later.
    monkeypatch.setattr(form, "_DOUBLE_TAP_S", 0.0)
    await ada.taps(which, "Flight delay")
    await ada.sees_new("question 1 of 4", after=again)
