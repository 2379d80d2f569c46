"""Where credentials are looked for."""

import pytest

from foretell.domain.errors import InvalidToken
from foretell.services.app.authentication import token_of


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer  abc ")], "abc"),
        ([(b"x-api-key", b" ftl_x ")], "ftl_x"),
        ([(b"x-api-key", b"ftl_x"), (b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"Basic YTpi"), (b"x-api-key", b"ftl_x")], "ftl_x"),
        ([(b"authorization", b"Bearer \xe9")], "é"),
    ],
)
def test_a_bearer_token_goes_before_an_api_key(headers: list[tuple[bytes, bytes]], token: str) -> None:
    assert token_of(headers) == token


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"abc")],
        [(b"x-api-key", b"")],
    ],
)
def test_nothing_is_not_a_token(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidToken):
        token_of(headers)
