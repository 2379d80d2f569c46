"""The bot's texts, from the gettext catalogues beside this file. The code contains no texts."""

import gettext
import io
from datetime import UTC, date, datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from babel.dates import format_datetime
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

LANGUAGES = ("en", "ru")
_FOLDER = Path(__file__).parent / "catalogues"


@cache
def catalogue(language: str) -> Catalog:
    """All texts of a language, by their keys."""
    with (_FOLDER / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)


@cache
def _translations(language: str) -> gettext.GNUTranslations:
    compiled = io.BytesIO()
    write_mo(compiled, catalogue(language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def language_of(telegram_code: str | None) -> str:
    """The bot's language for a Telegram language code."""
    return "ru" if (telegram_code or "").lower().partition("-")[0] == "ru" else "en"


class Words:
    """The texts of one language. Values put into them are escaped, since Telegram parses them as HTML."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "en"
        self._texts = _translations(self.language)

    def __call__(self, key: str, **values: Any) -> str:
        """The text of this key."""
        return self._texts.gettext(key).format(**{name: _safe(value) for name, value in values.items()})

    def plain(self, key: str, **values: Any) -> str:
        """The text of this key where HTML is not parsed, for example on a button."""
        return self._texts.gettext(key).format(**values)

    def refusal(self, key: str, key_without: str, reason: str) -> str:
        """The text of a refusal. The app's reasons are English, so other languages use `key_without`."""
        return self(key, reason=reason) if self.language == "en" and reason else self(key_without)

    def count(self, key: str, number: int, **values: Any) -> str:
        """The text of this key in the plural form for `number`, which replaces `{number}`."""
        text = self._texts.ngettext(key, key, number)
        return text.format(number=self.number(number), **{name: _safe(value) for name, value in values.items()})

    def measure(self, value: float, unit: Any) -> str:
        """A number with its unit, not escaped. `unit` has `en` and `ru`, each in the single form from the schema."""
        key = f"unit.{unit.en.casefold()}"
        if catalogue(self.language).get(key) is None:
            # In brackets, since the number may need another form of the word: 1 mile, 21 миля.
            return f"{self.number(value)} ({getattr(unit, self.language)})"
        # A fraction has the form for two in Russian (1,5 мили), and the plural in English.
        amount = int(abs(value)) if float(value).is_integer() else 2
        return self._texts.ngettext(key, key, amount).format(number=self.number(value))

    def of(self, words: Any) -> str:
        """The text of this language from an object or mapping with `en` and `ru`, escaped."""
        if isinstance(words, dict):
            return escape(str(words.get(self.language) or words.get("en") or ""), quote=False)
        return escape(str(getattr(words, self.language)), quote=False)

    def number(self, value: float) -> str:
        """A number in the format of this language."""
        return str(format_decimal(value, locale=self.language, decimal_quantization=False))

    def percent(self, share: float) -> str:
        """A share of 1 in percent."""
        return str(format_percent(share, format="#,##0.#%", locale=self.language))

    def day(self, day: date) -> str:
        """A date, in the form in which people are asked to write it."""
        return day.strftime("%d.%m.%Y") if self.language == "ru" else day.isoformat()

    def moment(self, moment: datetime | str) -> str:
        """A time, in UTC."""
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        said = format_datetime(moment.astimezone(UTC), "d MMM y, HH:mm", locale=self.language)
        return f"{said} UTC"


class Marked(str):
    """HTML that must not be escaped."""


def _safe(value: Any) -> str:
    return value if isinstance(value, Marked) else escape(str(value), quote=False)
