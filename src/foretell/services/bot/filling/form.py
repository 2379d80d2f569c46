"""A form under way: what was answered, what comes next, and what remains of it when the model changes."""

import secrets
import sqlite3
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from foretell.contracts.fields import Field
from foretell.kit.clock import now
from foretell.services.bot.filling.reading import DoesNotFit, check
from foretell.services.bot.models import Model
from foretell.services.bot.storage.database import BotDatabase

#: A form that nobody touched for so long is over.
_KEPT_S = 30 * 86_400.0


#: The model of a text that waits for somebody to choose one.
NO_MODEL = ""


def new_id() -> str:
    """A name for a form, short enough for buttons."""
    return secrets.token_urlsafe(6)


class Form(Struct):
    """What somebody fills in, in one chat."""

    id: str
    model: str
    version: str
    #: The message that asks; buttons below others are of the past.
    message_id: int = 0
    #: Which field is asked for; as many as there are fields: all is there, and to be sent.
    step: int = 0
    values: dict[str, Any] = {}
    #: Names of the fields that are left out.
    skipped: list[str] = []
    #: One answer is changed; then all is there again.
    changing: bool = False
    #: The update that brought it this far: one that is handled again, after a crash, must not count twice.
    seen: int = 0

    def answered(self, field: Field) -> bool:
        """Whether there is nothing more to ask about this field."""
        return field.name in self.values or field.name in self.skipped

    def take(self, field: Field, value: Any) -> None:
        """The answer."""
        self.values[field.name] = value
        self.skipped = [name for name in self.skipped if name != field.name]

    def skip(self, field: Field) -> None:
        """No answer: what may be unknown and must be said is null, the rest is left out."""
        self.values.pop(field.name, None)
        if field.required:
            self.values[field.name] = None
        elif field.name not in self.skipped:
            self.skipped.append(field.name)

    def go_on(self, model: Model) -> None:
        """To the next field without an answer, or to the end."""
        first = 0 if self.changing else self.step
        self.changing = False
        self.step = next(
            (place for place, field in enumerate(model.fields) if place >= first and not self.answered(field)),
            next((place for place, field in enumerate(model.fields) if not self.answered(field)), len(model.fields)),
        )

    def refit(self, model: Model) -> bool:
        """Keep what still fits a new version of the model; returns whether it is another version."""
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
    """Whether this can be a value of the field."""
    try:
        check(field, value)
    except DoesNotFit:
        return False
    return True


def may_be_skipped(field: Field) -> bool:
    """Whether it may go without an answer."""
    return not field.required or field.nullable


def offered(field: Field, language: str) -> list[tuple[str, Any]]:
    """Answers to offer as buttons: (`d` for the default or `e` for the example, value)."""
    example = field.example_ru if language == "ru" and field.example_ru is not UNSET else field.example
    found: list[tuple[str, Any]] = []
    if field.default is not UNSET:
        found.append(("d", field.default))
    if example is not UNSET and example != (found[0][1] if found else UNSET):
        found.append(("e", example))
    return found


class Forms:
    """The forms under way, one for each person and chat."""

    def __init__(self, database: BotDatabase) -> None:
        self._database = database

    async def of(self, chat_id: int, user_id: int) -> Form | None:
        """The one of this person in this chat."""

        def work(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT state FROM forms WHERE chat_id = ? AND user_id = ?", (chat_id, user_id)
            ).fetchone()
            return None if row is None else row["state"]

        state = await self._database.run(work)
        if state is None:
            return None
        try:
            return msgspec.json.decode(state, type=Form)
        except msgspec.MsgspecError:
            # Written by another release: better asked anew than never answered again.
            await self.end(chat_id, user_id)
            return None

    async def keep(self, chat_id: int, user_id: int, form: Form) -> None:
        """Remember how far it is."""
        state, at = msgspec.json.encode(form), now().timestamp()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO forms (chat_id, user_id, state, changed_at) VALUES (?, ?, ?, ?)",
                (chat_id, user_id, state, at),
            )
            connection.execute("DELETE FROM forms WHERE changed_at < ?", (at - _KEPT_S,))

        await self._database.run(work)

    async def end(self, chat_id: int, user_id: int) -> bool:
        """It is over; False when there was none."""
        return await self._database.run(
            lambda connection: bool(
                connection.execute("DELETE FROM forms WHERE chat_id = ? AND user_id = ?", (chat_id, user_id)).rowcount
            )
        )
