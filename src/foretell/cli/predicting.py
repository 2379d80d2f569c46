"""predict: one prediction over HTTP, by the public API."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from foretell.cli.output import count, print_json, remark, say
from foretell.client import ApiError, Client, PredictionFailed
from foretell.client.types import Model, Prediction
from foretell.contracts.fields import Field, fields_of
from foretell.kit.errors import ForetellError
from foretell.local.health import reachable_host
from foretell.local.installation import Installation
from foretell.local.services import usual_url

#: Short, because a user waits at the terminal.
_PATIENCE_S = 5.0
#: The test user of development installations.
_DEVELOPMENT_USER = "test"
_TEXTS = ("text", "time", "date", "datetime")
_WORDS = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "list": "a list, [1, 2] say",
    "object": 'an object, {"x": 1} say',
}


class FieldUnreadable(ForetellError):
    """{field} can't be read: {reason}"""

    code = "field_unreadable"


class NotLoggedIn(ForetellError):
    """Say who you are: --user and --password, or --token, or FORETELL_API_KEY."""

    code = "not_logged_in"


@dataclass(frozen=True, slots=True)
class Access:
    """URL and credentials; missing ones are determined automatically."""

    url: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None


def predict(
    model: str,
    fields: Sequence[str],
    *,
    features: bool,
    version: str | None,
    access: Access,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Request one prediction, wait for its result, and show it."""
    token = access.token or os.environ.get("FORETELL_API_KEY")
    with Client(access.url or _running_url(), token=token, retry_for_s=_PATIENCE_S) as client:
        if not token:
            _log_in(client, access)
        about = client.model(model, version)
        payload = read_fields(fields, about["features_schema" if features else "input_schema"])
        try:
            prediction = client.predict(
                model,
                None if features else payload,
                features=payload if features else None,
                version=version,
                timeout_s=timeout_s,
            )
        except PredictionFailed as error:
            if not as_json:
                raise
            print_json(error.prediction)
            sys.exit(1)
    if as_json:
        print_json(prediction)
    else:
        _show(prediction, about)


def _running_url() -> str:
    """The URL of the running engine's app, or of the documented port."""
    record = Installation.from_environment().read()
    app = next((each for each in record.programs if each.service == "app"), None) if record else None
    if app is None:
        return os.environ.get("FORETELL_URL") or usual_url("app")
    host = reachable_host(app.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{app.port}"


def _log_in(client: Client, access: Access) -> None:
    password = access.password
    if access.user is None:
        try:
            client.log_in(_DEVELOPMENT_USER, _DEVELOPMENT_USER)
        except ApiError as error:
            if error.status_code == 401:
                raise NotLoggedIn from error
            raise
        return
    if password is None:
        from getpass import getpass

        password = getpass(f"Password of {access.user}: ")
    client.log_in(access.user, password)


def read_fields(given: Sequence[str], schema: dict[str, Any]) -> dict[str, Any]:
    """`["distance=550", "carrier=AA"]` as values of the model's fields. Raises `FieldUnreadable`."""
    fields = {field.name: field for field in fields_of(schema)}
    payload: dict[str, Any] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise FieldUnreadable(field=repr(text), reason="write FIELD=VALUE.")
        if name in payload:
            raise FieldUnreadable(field=name, reason="it is given twice.")
        if fields and name not in fields and schema.get("additionalProperties") is False:
            raise FieldUnreadable(field=name, reason=f"the model takes {', '.join(fields)}.")
        payload[name] = _read(fields.get(name), value)
    return payload


def _read(field: Field | None, text: str) -> Any:
    """`text` as a value of the field's kind; the schema validates it."""
    kind = "json" if field is None else field.kind
    if kind in _TEXTS:
        return text
    for choice in (field.choices if field is not None else None) or ():
        # Accept a text with or without quotation marks.
        if text in (choice.value, msgspec.json.encode(choice.value).decode()):
            return choice.value
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if field is None or kind in ("json", "choice"):
            return text
        raise FieldUnreadable(field=field.name, reason=f"{text!r} should be {_WORDS[kind]}.") from None


def _show(prediction: Prediction, about: Model) -> None:
    for name, value in prediction["output"].items():
        label = about["labels"].get(str(value)) if isinstance(value, (int, str)) else None
        shown = value if isinstance(value, (int, float, str)) else msgspec.json.encode(value).decode()
        say(f"{name}: {shown}" + (f" ({label['en']})" if label else ""))
    total_s = prediction["timings"]["total_s"]
    took = f" in {total_s * 1000:.0f} ms" if total_s is not None else ""
    remark(
        f"{prediction['model']} {prediction['version']}, by {prediction['worker_id']}{took}, "
        f"for {count(prediction['price'], 'credit')}, id {prediction['id']}"
    )
