"""The state of a form: its answers, the next question, and what to keep when the model changes."""

import secrets
import sqlite3
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from foretell.contracts.fields import Field
from foretell.kit import structs
from foretell.kit.clock import now
from foretell.services.bot.filling.reading import DoesNotFit, check
from foretell.services.bot.models import Model
from foretell.services.bot.storage.database import BotDatabase

#: A form without an answer for this long is deleted.
_KEPT_S = 30 * 86_400.0


#: Two taps on a button within this time are a double tap. A later one may be of somebody who has deleted the question.
_DOUBLE_TAP_S = 15.0

#: The model of a form whose text waits for the choice of a model.
NO_MODEL = ""


def new_id() -> str:
    """An id for a form, short enough for the data of buttons."""
    return secrets.token_urlsafe(6)


class Form(Struct):
    """The form of one person in one chat."""

    id: str
    model: str
    version: str
    #: The message with the current question; buttons of other messages are outdated.
    message_id: int = 0
    #: The index of the field to ask for; the number of fields when the form is complete.
    step: int = 0
    values: dict[str, Any] = {}
    #: Names of the fields without a value.
    skipped: list[str] = []
    #: Whether one answer of a complete form is being changed.
    changing: bool = False
    #: The last update that changed the form, so that an update that is handled again after a crash counts once.
    seen: int = 0
    #: The button that began the form, the update of that tap, and when it was handled (Unix time): see `is_of_tap`.
    begun_from: str = ""
    begun_by: int = 0
    begun_at: float = 0.0

    def is_of_tap(self, button: str, update_id: int) -> bool:
        """Whether another tap on the same button has just begun this form, which was not answered since."""
        just_now = now().timestamp() - self.begun_at < _DOUBLE_TAP_S
        # An update that is handled again after a crash is no other tap.
        return bool(button) and self.begun_from == button and self.seen == self.begun_by != update_id and just_now

    def answered(self, field: Field) -> bool:
        """Whether this field has an answer or was skipped."""
        return field.name in self.values or field.name in self.skipped

    def take(self, field: Field, value: Any) -> None:
        """Set the answer."""
        self.values[field.name] = value
        self.skipped = [name for name in self.skipped if name != field.name]

    def skip(self, field: Field) -> None:
        """Skip the field: null for a required field that is nullable, otherwise no value."""
        self.values.pop(field.name, None)
        if field.required:
            self.values[field.name] = None
        elif field.name not in self.skipped:
            self.skipped.append(field.name)

    def go_on(self, model: Model) -> None:
        """Go to the next field without an answer, or to the end."""
        first = 0 if self.changing else self.step
        self.changing = False
        self.step = next(
            (place for place, field in enumerate(model.fields) if place >= first and not self.answered(field)),
            next((place for place, field in enumerate(model.fields) if not self.answered(field)), len(model.fields)),
        )

    def refit(self, model: Model) -> bool:
        """Keep the answers that fit a new version of the model; returns whether the version has changed."""
        if model.version == self.version:
            return False
        self.version = model.version
        fields = {field.name: field for field in model.fields}
        self.values = {
            name: value for name, value in self.values.items() if name in fields and fits(fields[name], value)
        }
        self.skipped = [name for name in self.skipped if name in fields and may_be_skipped(fields[name])]
        self.step, self.changing = 0, False
        self.go_on(model)
        return True


def fits(field: Field, value: Any) -> bool:
    """Whether this is a valid value of the field."""
    try:
        check(field, value)
    except DoesNotFit:
        return False
    return True


def may_be_skipped(field: Field) -> bool:
    """Whether the field needs no answer."""
    return not field.required or field.nullable


def offered(field: Field, language: str) -> list[tuple[str, Any]]:
    """Answers to offer as buttons: (`d` for the default or `e` for the example, value)."""
    example = field.example_ru if language == "ru" and field.example_ru is not UNSET else field.example
    found: list[tuple[str, Any]] = []
    # An empty default is what "skip" means.
    is_empty = field.default in (None, "", [], {})
    if field.default is not UNSET and not (is_empty and may_be_skipped(field)):
        found.append(("d", field.default))
    # A boolean has a button for each value already.
    if example is not UNSET and field.kind != "boolean" and example != (found[0][1] if found else UNSET):
        found.append(("e", example))
    return found


class Forms:
    """The open forms, one for each person and chat."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def of(self, chat_id: int, user_id: int) -> Form | None:
        """The form of this person in this chat."""

        def work(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT state FROM forms WHERE chat_id = ? AND user_id = ?", (chat_id, user_id)
            ).fetchone()
            return None if row is None else row["state"]

        state = await self._database.run(work)
        if state is None:
            return None
        try:
            return structs.decode(state, Form)
        except msgspec.MsgspecError:
            # Stored by another release: end it, so that the person can begin again.
            await self.end(chat_id, user_id)
            return None

    async def keep(self, chat_id: int, user_id: int, form: Form) -> None:
        """Store the form."""
        state, at = msgspec.json.encode(form), now().timestamp()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO forms (chat_id, user_id, state, changed_at) VALUES (?, ?, ?, ?)",
                (chat_id, user_id, state, at),
            )
            connection.execute("DELETE FROM forms WHERE changed_at < ?", (at - _KEPT_S,))

        await self._database.run(work)

    async def end_one(self, chat_id: int, user_id: int, form_id: str) -> None:
        """Delete this form; another one stays open: `/predict TEXT` submits a form of its own."""
        form = await self.of(chat_id, user_id)
        if form is not None and form.id == form_id:
            await self.end(chat_id, user_id)

    async def end(self, chat_id: int, user_id: int) -> bool:
        """Delete the form, whichever it is; False when there was none."""
        return await self._database.run(
            lambda connection: bool(
                connection.execute("DELETE FROM forms WHERE chat_id = ? AND user_id = ?", (chat_id, user_id)).rowcount
            )
        )

    async def end_of(self, user_id: int) -> None:
        """Delete the forms of this person in all chats."""
        await self._database.run(
            lambda connection: connection.execute("DELETE FROM forms WHERE user_id = ?", (user_id,))
        )
