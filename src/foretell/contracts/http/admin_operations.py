"""For operators: silences of alerts, and dead letters."""

from pydantic import Field

from foretell.contracts.http.bodies import Answer, Request


class NewSilence(Request):
    """For how long to say nothing; 0 ends a silence."""

    minutes: float = Field(ge=0, le=43_200, strict=True, examples=[120])


class NewRedrive(Request):
    """How many of the oldest to send back, at most."""

    limit: int = Field(ge=1, le=100_000, strict=True, examples=[100])


class NewDiscard(Request):
    """How many there are, as whoever throws them away knows."""

    confirm: int = Field(ge=0, le=999_999_999, strict=True, examples=[3])


class MovedLetters(Answer):
    """How many dead letters were sent back or thrown away, and how many were left at that moment."""

    queue: str
    moved: int
    left: int
