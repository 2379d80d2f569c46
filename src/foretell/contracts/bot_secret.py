"""`FORETELL_BOT_SECRET`: app, dispatcher and bot of one installation authenticate each other with it.

It has the form of Standard Webhooks, `whsec_` and the base64 of 24 to 64 random bytes, because events are sent to
the bot as to a webhook. The bot sends it to the app as a bearer token.
"""

import base64
import binascii
import secrets

from foretell.kit.settings import ServiceSettings, is_guessable

PREFIX = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64
_NEW_BYTES = 32
#: The required form, as the rest of a sentence after "it".
BOT_SECRET_FORM = (
    f"must be {PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} random bytes. Make one: "
    f'echo "{PREFIX}$(openssl rand -base64 {_NEW_BYTES})"'
)


def new_bot_secret() -> str:
    """A new secret of 256 random bits."""
    while True:
        secret = base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()
        # About one in ten thousand contains a word, such as `test`, that production refuses.
        if not is_guessable(secret):
            return PREFIX + secret


def bot_secret_key(secret: str) -> bytes:
    """The key that signs requests to the bot. Raises `ValueError` with the required form of the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(BOT_SECRET_FORM)
    return key


def check_bot_secret(settings: ServiceSettings, secret: str, *, needed: bool) -> None:
    """Refuse a secret of another form, in production a guessable one, and a missing one if it is `needed`.

    Raises `Misconfigured`. An installation without a bot needs none.
    """
    if not secret and not needed:
        return
    try:
        key = bot_secret_key(secret)
    except ValueError as error:
        raise settings.refuse("bot_secret", f"{error} (the same for app, dispatcher and bot)") from error
    text = secret.removeprefix(PREFIX)
    # A secret made up by a person contains words, or the base64 of words.
    if settings.production and (is_guessable(text) or is_guessable(key.decode("latin-1"))):
        raise settings.refuse("bot_secret", "is a placeholder or easy to guess; set a random one of your own.")
