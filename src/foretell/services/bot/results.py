"""The message of a prediction: label, probabilities as bars, price, worker, time."""

from collections.abc import Mapping
from html import unescape
from typing import Any

from foretell.contracts.fields import Field
from foretell.services.bot.filling.asking import complaint, said, shortened
from foretell.services.bot.filling.reading import DoesNotFit, check
from foretell.services.bot.keyboards import Button, Keyboard
from foretell.services.bot.models import Model
from foretell.services.bot.words import Marked, Words

_BAR = 10
_MOST_LINES = 12
_LONGEST_VALUE = 300
_KNOWN_CODES = frozenset(
    {"invalid_input", "model_error", "timeout", "expired", "undeliverable", "input_too_large", "output_too_large"}
)


def waiting_text(model: Model, words: Words) -> str:
    """The text while a prediction is queued or running."""
    return words(
        "asked.waiting", model=Marked(words.of(model.title)), price=Marked(words.count("credits", model.price))
    )


def bar(share: float) -> str:
    """A share of 1 as a bar."""
    full = round(min(1.0, max(0.0, share)) * _BAR)
    return "▓" * full + "░" * (_BAR - full)


def outcome_message(prediction: Mapping[str, Any], model: Model | None, words: Words) -> tuple[str, Keyboard]:
    """The message of a prediction that has ended, or of one in the history. Without `model`, without labels."""
    title = words.of(model.title) if model is not None else words("value.as_is", value=prediction["model"])
    lines = [f"<b>{title}</b>", ""]
    status = prediction["status"]
    if status == "succeeded":
        lines += _answer(prediction.get("output"), model, words)
    elif status == "failed":
        lines += _failure(prediction, model, words)
    else:
        lines.append(words(f"status.{status}"))
    lines += ["", _footer(prediction, words)]
    rows = []
    if status != "queued":
        identity = prediction["id"].replace("-", "")
        rows = [
            [
                Button(words.plain("button.again"), f"r:{identity}"),
                Button(words.plain("button.change"), f"v:{identity}"),
            ]
        ]
    return "\n".join(lines), Keyboard(rows)


def _failure(prediction: Mapping[str, Any], model: Model | None, words: Words) -> list[str]:
    error = prediction.get("error") or {}
    code = str(error.get("code") or "")
    wrong = _wrong_fields(prediction.get("input"), model, words) if code == "invalid_input" else []
    if wrong:
        return [words("failed.invalid_fields"), *wrong, words("failed.free")]
    key = f"failed.{code}" if code in _KNOWN_CODES else "failed.other"
    lines = [words(key, reason=shortened(str(error.get("message") or code), _LONGEST_VALUE))]
    lines.append(words("failed.free"))
    return lines


def _wrong_fields(values: Any, model: Model | None, words: Words) -> list[str]:
    """A line for each invalid value, in the reader's language, because the model's own reason is English.

    Empty if the checks of the fields find no error; then only the model's reason is shown.
    """
    if model is None or not isinstance(values, Mapping):
        return []
    lines = []
    for field in model.fields:
        try:
            if field.name in values:
                check(field, values[field.name])
            elif field.required:
                raise DoesNotFit("wrong.missing")
        except DoesNotFit as wrong:
            # The form's text refers to buttons, which this message does not have.
            why = Marked(words("failed.choice") if wrong.key == "wrong.choice" else complaint(wrong, words))
            lines.append(words("failed.field", title=Marked(words.of(field.title)), why=why))
    return lines[:_MOST_LINES]


def _footer(prediction: Mapping[str, Any], words: Words) -> str:
    parts = [words.count("credits", prediction["price"] if prediction["status"] in ("succeeded", "queued") else 0)]
    if prediction.get("worker_id"):
        parts.append(words("result.worker", worker=prediction["worker_id"]))
    total_s = (prediction.get("timings") or {}).get("total_s")
    if total_s is not None:
        parts.append(words("result.took", seconds=words.number(round(float(total_s), 2))))
    parts.append(words.moment(prediction.get("finished_at") or prediction["created_at"]))
    return "<i>" + " · ".join(parts) + "</i>"


def headline(prediction: Mapping[str, Any], model: Model | None, words: Words) -> str:
    """The label of the output, as plain text; empty if it has none."""
    output = prediction.get("output")
    if model is None or not isinstance(output, dict):
        return ""
    fields = {field.name: field for field in model.output}
    found = (_label_in(value, fields.get(name), model.labels, words) for name, value in output.items())
    return unescape(next(filter(None, found), ""))


def _answer(output: Any, model: Model | None, words: Words) -> list[str]:
    """The lines of the output: the label first, then the rest."""
    if not isinstance(output, dict):
        return [words("value.as_is", value=shortened(str(output), _LONGEST_VALUE))]
    fields = {field.name: field for field in model.output} if model is not None else {}
    labels = model.labels if model is not None else {}
    lines: list[str] = []
    rest: list[str] = []
    for name, value in output.items():
        field = fields.get(name)
        label = _label_in(value, field, labels, words)
        if label is not None:
            lines.append(words("result.label", label=Marked(label)))
        else:
            rest += _value(name, value, field, labels, words)
    return [*lines, *rest][:_MOST_LINES]


def _label_in(value: Any, field: Field | None, labels: dict[str, dict[str, str]], words: Words) -> str | None:
    return None if isinstance(value, (dict, list, float)) else _label(value, field, labels, words)


def _label(value: Any, field: Field | None, labels: dict[str, dict[str, str]], words: Words) -> str | None:
    """The label of this value, if it has one."""
    if str(value) in labels:
        return words.of(labels[str(value)])
    for choice in (field.choices if field is not None else None) or []:
        if choice.value == value:
            return words.of(choice.label)
    return None


def _value(name: str, value: Any, field: Field | None, labels: dict[str, dict[str, str]], words: Words) -> list[str]:
    """The lines of a value that is no label: shares of 1 as bars, everything else unchanged."""
    if field is not None:
        title = words.of(field.title)
    elif name in labels:
        title = words.of(labels[name])
    else:
        title = words("value.as_is", value=name)
    if isinstance(value, dict):
        inner = {each.name: each for each in (field.fields if field is not None else None) or []}
        ordered = sorted(value.items(), key=lambda item: -item[1] if isinstance(item[1], (int, float)) else 0)
        lines = []
        for key, each in ordered:
            lines += _value(key, each, inner.get(key), labels, words)
        return lines
    if isinstance(value, float) and 0 <= value <= 1 and _is_share(field):
        return [words("result.bar", title=Marked(title), bar=bar(value), percent=words.percent(value))]
    text = (
        said(field, value, words)
        if field is not None
        else (words.number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value))
    )
    return [words("form.answer", title=Marked(title), value=shortened(text, _LONGEST_VALUE))]


def _is_share(field: Field | None) -> bool:
    return field is None or (field.minimum == 0 and field.maximum == 1)
