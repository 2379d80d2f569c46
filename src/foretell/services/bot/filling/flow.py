"""The steps of a form: the next question, the summary, and the submission to the app."""

from typing import Any

import msgspec
import structlog

from foretell.client import ApiError, AsyncClient, Unreachable
from foretell.kit.clock import now
from foretell.services.bot.filling.asking import fields_to_change, question, summary
from foretell.services.bot.filling.form import Form, fits, new_id
from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.models import Model
from foretell.services.bot.offers import how_to_more, ways_to_more
from foretell.services.bot.results import waiting_text
from foretell.services.bot.storage.asked import Asked
from foretell.services.bot.talk import Talk
from foretell.services.bot.words import Marked

log = structlog.get_logger()

_PAYMENT_REQUIRED = 402
_UNPROCESSABLE = 422


async def begin(
    talk: Talk, client: AsyncClient, model: Model, values: dict[str, Any] | None = None, *, which: bool = False
) -> None:
    """Begin a new form in place of an earlier one. Valid ones of `values` are used as answers.

    `which`: if all is answered, ask which answer to change.
    """
    before = await talk.parts.forms.of(talk.chat_id, talk.user_id)
    if before is not None and before.is_of_tap(talk.tapped_button, talk.update.update_id):
        await talk.answer_tap(talk.words.plain("form.below"))
        return
    fields = {field.name: field for field in model.fields}
    kept = {name: value for name, value in (values or {}).items() if name in fields and fits(fields[name], value)}
    form = Form(id=new_id(), model=model.name, version=model.version, values=kept)
    form.begun_from, form.begun_by, form.begun_at = talk.tapped_button, talk.update.update_id, now().timestamp()
    if values:
        # Skip the fields that the given values leave out.
        form.skipped = [field.name for field in model.fields if not field.required and field.name not in kept]
    form.go_on(model)
    if which and form.step >= len(model.fields):
        form.seen = talk.update.update_id
        text, keyboard = fields_to_change(form, model, talk.words, 0)
        form.message_id = await talk.say(text, keyboard)
        await talk.parts.forms.keep(talk.chat_id, talk.user_id, form)
        return
    await show(talk, client, form, model, anew=True)


async def show(
    talk: Talk, client: AsyncClient, form: Form, model: Model, *, page: int = 0, wrong: str = "", anew: bool = False
) -> None:
    """Show the current question or the summary. `anew`: in a new message, even if a button was tapped."""
    if form.step < len(model.fields):
        text, keyboard = question(form, model, talk.words, private=talk.private, page=page, wrong=wrong)
    else:
        balance = await client.balance()
        text, keyboard = summary(form, model, talk.words, balance["available"], private=talk.private)
        text = f"{wrong}\n\n{text}" if wrong else text
    form.seen = talk.update.update_id
    # Store the form before showing it: a message may be lost, an answer must not be.
    await talk.parts.forms.keep(talk.chat_id, talk.user_id, form)
    shown = await (talk.say(text, keyboard) if anew else talk.show(text, keyboard))
    if shown != form.message_id:
        form.message_id = shown
        await talk.parts.forms.keep(talk.chat_id, talk.user_id, form)


def key_of(talk: Talk, form_id: str) -> str:
    """The idempotency key of a form in this chat."""
    return f"telegram-{talk.chat_id}-{form_id}"


async def submit(talk: Talk, client: AsyncClient, form: Form, model: Model) -> None:
    """Submit a complete form. The result will replace the message that was tapped."""
    key = key_of(talk, form.id)
    asked = await talk.parts.asked.by_key(key)
    if asked is None:
        message_id = await talk.show(waiting_text(model, talk.words))
        asked = Asked(key, talk.chat_id, talk.user_id, message_id, talk.words.language, form.model, form.values)
        await talk.parts.asked.begin(asked)
    elif asked.state != "sending":
        return
    else:
        # An earlier process submitted it but ended before the answer.
        talk.goes_on_in(asked.message_id)
    try:
        prediction = await client.submit(form.model, asked.input, idempotency_key=asked.key)
    except Unreachable:
        # The app may have accepted it; it is submitted again with the same key until there is an answer.
        await talk.parts.forms.end_one(talk.chat_id, talk.user_id, form.id)
        await talk.show(talk.words("asked.later", model=Marked(talk.words.of(model.title))))
        return
    except ApiError as error:
        if error.status_code >= 500 or error.status_code in (409, 429):
            await talk.parts.forms.end_one(talk.chat_id, talk.user_id, form.id)
            await talk.show(talk.words("asked.later", model=Marked(talk.words.of(model.title))))
            return
        await talk.parts.asked.refused(asked.key)
        await _refused(talk, client, form, model, error)
        return
    await talk.parts.asked.accepted(asked.key, prediction["id"])
    await talk.parts.forms.end_one(talk.chat_id, talk.user_id, form.id)
    if prediction["status"] != "queued":
        # The prediction had already ended when it was submitted again.
        await talk.parts.outbox.put(
            prediction["id"], talk.user_id, "prediction.finished", msgspec.json.encode(prediction)
        )


async def _refused(talk: Talk, client: AsyncClient, form: Form, model: Model, error: ApiError) -> None:
    """Handle a refusal: the form stays as it is, or returns to the invalid answer."""
    if error.status_code == _PAYMENT_REQUIRED:
        price = Marked(talk.words.count("credits", model.price))
        if talk.private:
            available = Marked(talk.words.count("credits", (await client.balance())["available"]))
            text = talk.words("asked.no_credits", price=price, available=available)
            text = f"{text}\n\n{how_to_more(talk.parts.settings, talk.words)}"
        else:
            text = talk.words("asked.no_credits_in_group", price=price)
        again = Button(talk.words.plain("button.again_now"), f"f:{form.id}:{form.step}:o")
        rows = [*ways_to_more(talk.parts.settings, talk.words), [again]]
        form.message_id = await talk.show(text, Keyboard(rows))
        await talk.parts.forms.keep(talk.chat_id, talk.user_id, form)
        return
    talk.parts.models.forget()
    if error.status_code == _UNPROCESSABLE:
        place = _field_of(error, model)
        if place is not None:
            form.step, form.changing = place, True
            said = str(next((each.get("detail") for each in error.errors if each.get("detail")), ""))
            await show(
                talk, client, form, model, wrong=talk.words.refusal("wrong.refused_because", "wrong.refused", said)
            )
            return
    log.info("submission_refused", status=error.status_code, code=error.problem_code)
    await talk.parts.forms.end_one(talk.chat_id, talk.user_id, form.id)
    await talk.show(talk.words.refusal("asked.refused_because", "asked.refused", error.message))


def _field_of(error: ApiError, model: Model) -> int | None:
    """The index of the field that the app has refused, or None."""
    for each in error.errors:
        steps = str(each.get("pointer") or "").removeprefix("#/").split("/")
        for place, field in enumerate(model.fields):
            if len(steps) > 1 and steps[1] == field.name:
                return place
    return None
