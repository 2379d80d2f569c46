"""Shows a form as a message: the question of a field with its buttons, or the summary before the submission."""

import json
from datetime import date, datetime
from typing import Any

from foretell.contracts.fields import Field
from foretell.services.bot.filling.form import Form, may_be_skipped, offered
from foretell.services.bot.filling.reading import DoesNotFit
from foretell.services.bot.keyboards import Button, Keyboard, paged
from foretell.services.bot.models import Model
from foretell.services.bot.words import Marked, Words

_CHOICES_ON_A_PAGE = 8
_FIELDS_ON_A_PAGE = 8
_LONGEST_VALUE = 200
_LONGEST_LABEL = 34


def shortened(text: str, most: int) -> str:
    """`text` in one line, cut to `most` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def said(field: Field, value: Any, words: Words) -> str:
    """A value in the reader's language, not escaped."""
    if value is None:
        return words("value.unknown")
    if isinstance(value, bool) and field.kind == "boolean":
        return words("value.yes" if value else "value.no")
    for choice in field.choices or []:
        if choice.value == value:
            return str(getattr(choice.label, words.language))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return words.number(value) if field.unit is None else words.measure(value, field.unit)
    if isinstance(value, str):
        return _said_text(field, value, words)
    if isinstance(value, list) and field.items is not None and not any(isinstance(each, dict | list) for each in value):
        return ", ".join(said(field.items, each, words) for each in value)
    return json.dumps(value, ensure_ascii=False)


def _said_text(field: Field, value: str, words: Words) -> str:
    """A text; a date or a time as the reader writes it."""
    try:
        if field.kind == "date":
            return words.day(date.fromisoformat(value))
        if field.kind == "datetime" and datetime.fromisoformat(value).tzinfo is not None:
            return words.moment(value)
    except ValueError:
        # It may come from the history, where the app has accepted what it accepts.
        pass
    return value


def complaint(wrong: DoesNotFit, words: Words) -> str:
    """Why an answer is invalid."""
    values = {
        name: words.number(value) if isinstance(value, (int, float)) else value for name, value in wrong.values.items()
    }
    if not wrong.within:
        return words(wrong.key, **values)
    # The form's text refers to buttons, which parts of a list or an object do not have.
    why = words("failed.choice" if wrong.key == "wrong.choice" else wrong.key, **values)
    for part in reversed(wrong.within):
        why = words("wrong.part", title=Marked(words.of(part.title)), why=Marked(why))
    return why


def bounds(field: Field, words: Words) -> str:
    """The conditions of the answer; empty without any."""

    def number(value: float) -> str:
        return words.number(value)

    lows = {"from": field.minimum, "above": field.exclusive_minimum}
    highs = {"to": field.maximum, "below": field.exclusive_maximum}
    low = next(((key, bound) for key, bound in lows.items() if bound is not None), None)
    high = next(((key, bound) for key, bound in highs.items() if bound is not None), None)
    parts = []
    if low is not None and high is not None:
        parts.append(words(f"bounds.{low[0]}_{high[0]}", low=number(low[1]), high=number(high[1])))
    else:
        parts += [words(f"bounds.{key}", bound=number(bound)) for key, bound in filter(None, (low, high))]
    if field.multiple_of:
        parts.append(words("bounds.multiple_of", bound=number(field.multiple_of)))
    if field.max_length is not None and field.kind == "text":
        parts.append(words.count("bounds.max_length", field.max_length))
    if field.kind == "list":
        parts += _bounds_of_list(field, words)
    return " ".join(parts)


def _bounds_of_list(field: Field, words: Words) -> list[str]:
    parts = []
    if field.min_items:
        parts.append(words.count("bounds.min_items", field.min_items))
    if field.max_items is not None:
        parts.append(words.count("bounds.max_items", field.max_items))
    if field.items is not None:
        labels = ", ".join(getattr(choice.label, words.language) for choice in field.items.choices or [])
        of_each = shortened(labels, _LONGEST_VALUE) or Marked(bounds(field.items, words))
        parts += [words("bounds.each", bounds=of_each)] if of_each else []
    return parts


def question(
    form: Form, model: Model, words: Words, *, private: bool, page: int = 0, wrong: str = ""
) -> tuple[str, Keyboard]:
    """The current question and its buttons. `wrong` is why the last answer was invalid."""
    field = model.fields[form.step]
    title = words.of(field.title)
    lines = [wrong, ""] if wrong else []
    lines.append(
        words("form.question", model=Marked(words.of(model.title)), step=form.step + 1, steps=len(model.fields))
    )
    unit = f", {words.of(field.unit)}" if field.unit is not None else ""
    lines += ["", f"<b>{title}</b>{unit}"]
    if field.description is not None:
        lines.append(words.of(field.description))
    lines += filter(None, [bounds(field, words)])
    lines.append(words(f"form.how.{field.kind}", shape=_shape(field)))
    if not private:
        # In a group the bot sees only replies to its own messages.
        lines.append(words("form.in_group"))
    if form.answered(field) and field.name in form.values:
        lines += ["", words("form.now", value=shortened(said(field, form.values[field.name], words), _LONGEST_VALUE))]
    return "\n".join(lines), Keyboard([*_answers(form, field, words, page), _ways_out(form, words)])


def _shape(field: Field) -> str:
    """The keys of an object, as JSON without the values."""
    return "{" + ", ".join(f"{json.dumps(each.name, ensure_ascii=False)}: …" for each in field.fields or []) + "}"


def _data(form: Form, action: str, argument: int | None = None) -> str:
    return f"f:{form.id}:{form.step}:{action}" + ("" if argument is None else f":{argument}")


def _answers(form: Form, field: Field, words: Words, page: int) -> list[list[Button]]:
    rows: list[list[Button]] = []
    if field.kind == "choice":
        buttons = [
            Button(shortened(getattr(choice.label, words.language), _LONGEST_LABEL), _data(form, "c", place))
            for place, choice in enumerate(field.choices or [])
        ]
        rows = paged(buttons, page, lambda other: _data(form, "p", other), size=_CHOICES_ON_A_PAGE)
    elif field.kind == "boolean":
        rows = [[Button(words("value.yes"), _data(form, "c", 1)), Button(words("value.no"), _data(form, "c", 0))]]
    if field.kind != "choice":
        for action, value in offered(field, words.language):
            key = "button.default" if action == "d" else "button.example"
            text = words.plain(key, value=shortened(said(field, value, words), _LONGEST_LABEL))
            rows.append([Button(text, _data(form, action))])
    if may_be_skipped(field):
        rows.append([Button(words.plain("button.skip"), _data(form, "k"))])
    return rows


def _ways_out(form: Form, words: Words) -> list[Button]:
    back = [Button(words.plain("button.back"), _data(form, "b"))] if form.step > 0 or form.changing else []
    return [*back, Button(words.plain("button.cancel"), _data(form, "x"))]


def answers_of(form: Form, model: Model, words: Words) -> list[str]:
    """The answers, one line each."""
    lines = []
    for field in model.fields:
        if field.name in form.values:
            value = shortened(said(field, form.values[field.name], words), _LONGEST_VALUE)
            lines.append(words("form.answer", title=Marked(words.of(field.title)), value=value))
    return lines


def summary(form: Form, model: Model, words: Words, available: int, *, private: bool) -> tuple[str, Keyboard]:
    """All answers with the price; in a private chat also the balance."""
    lines = [f"<b>{words.of(model.title)}</b>", "", *answers_of(form, model, words), ""]
    price, has = Marked(words.count("credits", model.price)), Marked(words.count("credits", available))
    lines.append(words("form.price", price=price, available=has) if private else words("form.price_only", price=price))
    if available < model.price:
        lines.append(words("form.too_little"))
    send = words.plain("button.send", price=words.count("credits", model.price))
    rows = [[Button(send, _data(form, "s"))]]
    if model.fields:
        rows.append([Button(words.plain("button.change"), _data(form, "l", 0))])
    rows.append(_ways_out(form, words))
    return "\n".join(lines), Keyboard(rows)


def fields_to_change(form: Form, model: Model, words: Words, page: int) -> tuple[str, Keyboard]:
    """The question which answer to change."""
    buttons = [
        Button(shortened(getattr(field.title, words.language), _LONGEST_LABEL), _data(form, "g", place))
        for place, field in enumerate(model.fields)
    ]
    rows = paged(buttons, page, lambda other: _data(form, "l", other), size=_FIELDS_ON_A_PAGE)
    rows.append(
        [Button(words.plain("button.back"), _data(form, "o")), Button(words.plain("button.cancel"), _data(form, "x"))]
    )
    return words("form.which"), Keyboard(rows)
