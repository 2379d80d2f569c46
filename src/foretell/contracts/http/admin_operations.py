"""For operators: silences of alerts, and dead letters."""

from pydantic import Field

from foretell.contracts.http.bodies import Answer, Request


class NewSilence(Request):
    """Length of a silence; 0 ends it."""

    minutes: float = Field(ge=0, le=43_200, strict=True, examples=[120])


class NewRedrive(Request):
    """How many of the oldest dead letters to send back, at most."""

    limit: int = Field(ge=1, le=100_000, strict=True, examples=[100])


class NewDiscard(Request):
    """The number of dead letters, as a confirmation that all of them are to be deleted."""

    confirm: int = Field(ge=0, le=999_999_999, strict=True, examples=[3])


class MovedLetters(Answer):
    """How many dead letters were sent back or deleted, and how many remain."""

    queue: str
    moved: int
    left: int
