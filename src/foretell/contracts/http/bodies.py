"""Base classes of bodies, and types of texts."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict


def _can_be_kept(text: str) -> str:
    # PostgreSQL can't store NUL.
    if "\0" in text:
        raise ValueError("must not contain the character NUL")
    # JSON can contain half of a surrogate pair, UTF-8 can't. Pydantic checks it only for a `str` with constraints of
    # its own, not for constraints that come after this function.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not contain half of a surrogate pair")
    return text


#: A text from a request that is stored. The pattern documents the rule in the schema; the function makes the message.
KeptText = Annotated[str, AfterValidator(_can_be_kept), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
PRINTABLE: JsonDict = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}


class Request(BaseModel):
    """The body of a request. Unknown fields are refused, since they would be ignored silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """The body of an answer. It may get more fields later, never fewer."""

    model_config = ConfigDict(frozen=True, from_attributes=True, json_schema_serialization_defaults_required=True)


class Words(Answer):
    """A text in the two languages of the product."""

    en: str
    ru: str
