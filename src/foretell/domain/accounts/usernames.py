"""Rules for user names, and when two names are the same."""

import unicodedata

from foretell.domain.errors import InvalidUsername

MIN_LENGTH = 3
MAX_LENGTH = 64
_PUNCTUATION = frozenset("._-@+")


def username_key(username: str) -> str:
    """The unique form of `username`: NFKC, case-folded. `Anna` and `anna` are the same user.

    Raises `InvalidUsername`.
    """
    # The length is checked first, to avoid normalising megabytes.
    if len(username) > MAX_LENGTH:
        raise InvalidUsername
    # Case-folding can undo a normalisation, so it is done once more.
    key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    if not MIN_LENGTH <= len(key) <= MAX_LENGTH or not all(map(_is_allowed, key)):
        raise InvalidUsername
    return key


def _is_allowed(character: str) -> bool:
    # In many scripts marks (M) are part of the letters before them.
    return character in _PUNCTUATION or unicodedata.category(character) in _LETTERS_MARKS_DIGITS


_LETTERS_MARKS_DIGITS = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"))
