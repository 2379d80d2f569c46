"""The page has a Russian text for every error that a person may meet on it."""

import re
from collections.abc import Iterator
from pathlib import Path

from foretell.kit.errors import ForetellError
from foretell.services.app import api

WEB = Path(__file__).parents[4] / "web" / "src"
#: Errors of what no page does: calls of the bot, of programs, and of whoever speaks no proper HTTP.
NOT_OF_THE_PAGE = {
    *(
        "chat_is_linked",
        "chat_not_linked",
        "unknown_link_code",
        "payment_differs",
        "broken_encoding",
        "unknown_encoding",
    ),
    *("method_not_allowed", "pieces_too_small", "several_hosts", "unknown_host", "foreign_page"),
}


def _errors(base: type[ForetellError]) -> Iterator[type[ForetellError]]:
    for error in base.__subclasses__():
        yield error
        yield from _errors(error)


def test_every_error_of_the_app_is_said_in_russian() -> None:
    assert api
    words = (WEB / "words" / "ru.ts").read_text(encoding="utf-8")
    words += (WEB / "operator" / "words.ts").read_text(encoding="utf-8")
    known = set(re.findall(r"\bproblem_(\w+):", words))
    codes = {
        error.code
        for error in _errors(ForetellError)
        # 500 is for what no request meets: commands, and packages that can't be read.
        if error.__module__.startswith(("foretell.domain", "foretell.services.app", "foretell.kit"))
        and error.status != 500
    }
    assert len(codes) > 30
    assert codes - known - NOT_OF_THE_PAGE == set()
