"""`/predict`: the choice of a model, and its form."""

from collections.abc import Mapping, Sequence
from typing import Any

from foretell.client import ApiError, AsyncClient
from foretell.contracts.fields import Field
from foretell.services.bot.filling import flow
from foretell.services.bot.filling.asking import complaint, fields_to_change
from foretell.services.bot.filling.form import NO_MODEL, Form, may_be_skipped, new_id, offered
from foretell.services.bot.filling.reading import DoesNotFit, read
from foretell.services.bot.keyboards import Keyboard
from foretell.services.bot.models import Model, short
from foretell.services.bot.offers import models_on_page
from foretell.services.bot.routing import Router
from foretell.services.bot.talk import Talk

router = Router()

_TEXT = "text"
#: The action of the button that closes a form.
_CLOSE = "x"
_NOT_FOUND = 404


@router.command("predict")
async def predict(talk: Talk, text: str) -> None:
    """Show the models as buttons; with a text, begin the form of the model that takes one."""
    client = await talk.parts.accounts.client_of(talk.user_id)
    models = await talk.parts.models.all(client)
    if not models:
        await talk.say(talk.words("models.none"))
        return
    if text:
        await _with_text(talk, client, models, text)
        return
    await talk.say(talk.words("predict.which"), _buttons(talk, models))


@router.button("mp")
async def turned(talk: Talk, arguments: list[str]) -> None:
    """Show another page of models."""
    client = await talk.parts.accounts.client_of(talk.user_id)
    page = int(arguments[0]) if arguments and arguments[0].isdecimal() else 0
    await talk.show(talk.words("predict.which"), _buttons(talk, await talk.parts.models.all(client), page))


def _buttons(talk: Talk, models: Sequence[Mapping[str, Any]], page: int = 0) -> Keyboard:
    return Keyboard(models_on_page(models, page, "mp", talk.words)[1])


async def _with_text(talk: Talk, client: AsyncClient, models: Sequence[Mapping[str, Any]], text: str) -> None:
    found = [await _model(talk, client, each["name"]) for each in models]
    fitting = [model for model in found if model is not None and model.text_field is not None]
    if not fitting:
        await talk.say(talk.words("predict.no_text_model"), _buttons(talk, models))
        return
    if len(fitting) > 1:
        # Keep the text until a model is chosen.
        kept = Form(id=new_id(), model=NO_MODEL, version="", values={_TEXT: text})
        await talk.parts.forms.keep(talk.chat_id, talk.user_id, kept)
        names = {model.name for model in fitting}
        await talk.say(talk.words("predict.which"), _buttons(talk, [each for each in models if each["name"] in names]))
        return
    model = fitting[0]
    field = model.text_field
    assert field is not None
    # The id is made from the message, so that a repeated update makes one prediction.
    number = talk.message.message_id if talk.message is not None else 0
    form = Form(id=f"t{number}", model=model.name, version=model.version)
    try:
        form.take(field, read(field, text, talk.words.language))
    except DoesNotFit as wrong:
        form.go_on(model)
        await flow.show(talk, client, form, model, wrong=complaint(wrong, talk.words))
        return
    form.go_on(model)
    await flow.submit(talk, client, form, model)


async def _model(talk: Talk, client: AsyncClient, name: str) -> Model | None:
    """The model; None when it was removed, and may come back."""
    try:
        return await talk.parts.models.one(client, name)
    except ApiError as error:
        if error.status_code != _NOT_FOUND:
            raise
        return None


@router.button("m")
async def model_chosen(talk: Talk, arguments: list[str]) -> None:
    """Begin the form of the model that was tapped."""
    client = await talk.parts.accounts.client_of(talk.user_id)
    for each in await talk.parts.models.all(client):
        if arguments and short(each["name"]) == arguments[0]:
            model = await _model(talk, client, each["name"])
            if model is None:
                break
            before = await talk.parts.forms.of(talk.chat_id, talk.user_id)
            field = model.text_field
            kept = before.values.get(_TEXT) if before is not None and before.model == NO_MODEL else None
            await flow.begin(talk, client, model, {field.name: kept} if field is not None and kept else None)
            return
    await talk.answer_tap(talk.words.plain("models.gone"), alert=True)


@router.button("f")
async def form_tapped(talk: Talk, arguments: list[str]) -> None:
    """Handle a button of a form."""
    form = await talk.parts.forms.of(talk.chat_id, talk.user_id)
    if form is None or form.model == NO_MODEL or len(arguments) < 3 or form.id != arguments[0]:
        sent = bool(arguments) and await talk.parts.asked.by_key(flow.key_of(talk, arguments[0])) is not None
        # In a group, another person's form looks the same as one that has ended.
        ended = "form.ended" if talk.private else "form.not_yours"
        await talk.answer_tap(talk.words.plain("form.sent" if sent else ended), alert=True)
        return
    client = await talk.parts.accounts.client_of(talk.user_id)
    model = await _model(talk, client, form.model)
    if model is None:
        if arguments[2] == _CLOSE:
            await _closed(talk)
        else:
            await talk.answer_tap(talk.words.plain("form.model_away"), alert=True)
        return
    if form.refit(model):
        await flow.show(talk, client, form, model, wrong=talk.words("form.new_version", version=model.version))
        return
    if arguments[1] != str(form.step) or talk.tapped_message_id != form.message_id:
        # A second tap, or a button of an earlier question: show the current question again.
        await talk.answer_tap(talk.words.plain("form.step_past"))
        if talk.tapped_message_id == form.message_id:
            await flow.show(talk, client, form, model)
        return
    await _act(talk, client, form, model, arguments[2], int(arguments[3]) if len(arguments) > 3 else 0)


async def _closed(talk: Talk) -> None:
    await talk.parts.forms.end(talk.chat_id, talk.user_id)
    await talk.show(talk.words("cancel.done"))


async def _act(talk: Talk, client: AsyncClient, form: Form, model: Model, action: str, argument: int) -> None:
    at_end = form.step >= len(model.fields)
    if action == _CLOSE:
        await _closed(talk)
    elif action == "s" and at_end:
        await flow.submit(talk, client, form, model)
    elif action == "l" and at_end:
        text, keyboard = fields_to_change(form, model, talk.words, argument)
        await talk.show(text, keyboard)
    elif action == "g" and argument < len(model.fields):
        form.step, form.changing = argument, True
        await flow.show(talk, client, form, model)
    elif action == "b":
        form.step = len(model.fields) if form.changing else max(0, form.step - 1)
        form.changing = False
        await flow.show(talk, client, form, model)
    elif action == "p":
        await flow.show(talk, client, form, model, page=argument)
    elif action in ("c", "k", "d", "e") and not at_end:
        await _tapped_answer(talk, client, form, model, action, argument)
    else:
        await flow.show(talk, client, form, model)


async def _tapped_answer(talk: Talk, client: AsyncClient, form: Form, model: Model, action: str, argument: int) -> None:
    field = model.fields[form.step]
    if action == "k" and may_be_skipped(field):
        form.skip(field)
    elif action == "c" and field.kind == "boolean":
        form.take(field, bool(argument))
    elif action == "c" and argument < len(field.choices or []):
        form.take(field, (field.choices or [])[argument].value)
    else:
        offers = dict(offered(field, talk.words.language))
        if action in offers:
            form.take(field, offers[action])
    form.go_on(model)
    await flow.show(talk, client, form, model)


@router.update
async def written(talk: Talk) -> bool:
    """Handle a written answer to a question, or another message in its place."""
    message = talk.update.message
    if message is None or message.successful_payment is not None:
        return False
    form = await talk.parts.forms.of(talk.chat_id, talk.user_id)
    if form is None or form.model == NO_MODEL or not _is_for_us(talk, form):
        return False
    client = await talk.parts.accounts.client_of(talk.user_id)
    model = await _model(talk, client, form.model)
    if model is None:
        if (message.text or "").startswith("/"):
            # No answer: another handler says what is wrong with this command.
            return False
        await talk.say(talk.words("form.model_away"))
        return True
    renewed = form.refit(model)
    if form.seen == talk.update.update_id:
        # An earlier process has already counted this answer.
        await flow.show(talk, client, form, model, anew=True)
        return True
    if form.step >= len(model.fields):
        key = "wrong.no_text" if message.text is None else "form.press_send"
        if (message.text or "").startswith("/"):
            key = _wrong_command(talk)
        await flow.show(talk, client, form, model, wrong=talk.words(key), anew=True)
        return True
    field = model.fields[form.step]
    if renewed:
        await flow.show(talk, client, form, model, wrong=talk.words("form.new_version", version=model.version))
    elif message.text is None:
        await flow.show(talk, client, form, model, wrong=talk.words("wrong.no_text"), anew=True)
    else:
        await _written_answer(talk, client, form, model, field, message.text)
    return True


def _is_for_us(talk: Talk, form: Form) -> bool:
    """Whether a message is for the bot: in a group only a reply to its question is."""
    if talk.private:
        return True
    message = talk.update.message
    replied = message.reply_to_message if message is not None else None
    return replied is not None and replied.message_id == form.message_id


def _wrong_command(talk: Talk) -> str:
    """The key of the reply to a command in place of an answer: one that is unknown, or was forwarded."""
    message = talk.update.message
    return "other.forwarded" if message is not None and message.forward_origin is not None else "wrong.command"


async def _written_answer(talk: Talk, client: AsyncClient, form: Form, model: Model, field: Field, text: str) -> None:
    if text.startswith("/"):
        await flow.show(talk, client, form, model, wrong=talk.words(_wrong_command(talk)), anew=True)
        return
    try:
        form.take(field, read(field, text, talk.words.language))
    except DoesNotFit as wrong:
        await flow.show(talk, client, form, model, wrong=complaint(wrong, talk.words), anew=True)
        return
    form.go_on(model)
    await flow.show(talk, client, form, model, anew=True)
