"""What every body is made of: whether unknown fields are refused, and which texts can be kept."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict


def _can_be_kept(text: str) -> str:
    # PostgreSQL stores no NUL, and nobody means one.
    if "\0" in text:
        raise ValueError("must not contain the character NUL")
    # JSON can carry half of a surrogate pair, and UTF-8 can't. Pydantic looks only where `str` has bounds of its own,
    # and those that stand after this function are none.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not contain half of a surrogate pair")
    return text


#: A text that somebody sends and that is kept. The pattern is for readers of the schema; the function says it in words.
KeptText = Annotated[str, AfterValidator(_can_be_kept), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
PRINTABLE: JsonDict = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}


class Request(BaseModel):
    """A body that somebody sends. A field that we do not know is refused: it would be ignored in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """A body that we send. It may get more fields later, never fewer."""

    model_config = ConfigDict(frozen=True, from_attributes=True, json_schema_serialization_defaults_required=True)


class Words(Answer):
    """A text in the two languages of the product."""

    en: str
    ru: str
