"""Access tokens: only ours, only whole, only in their time."""

import base64
import json
import time
from typing import Any
from uuid import UUID

import jwt
import pytest

from foretell.domain.accounts.identity import ChatLink, User
from foretell.domain.accounts.tokens import AccessTokens
from foretell.domain.errors import InvalidToken
from foretell.kit.clock import now, uuid7
from foretell.kit.errors import Misconfigured

SECRET = "s" * 32
ANNA = User(id=uuid7(), username="anna", role="user", active=True, created_at=now())


def claims(**changes: Any) -> dict[str, Any]:
    moment = int(time.time())
    usual = {
        "iss": "foretell",
        "aud": "foretell",
        "sub": str(ANNA.id),
        "role": "user",
        "typ": "access",
        "jti": "1",
        "iat": moment,
        "exp": moment + 60,
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def test_a_token_says_whose_it_is_and_until_when() -> None:
    tokens = AccessTokens(SECRET, lifetime_s=600)
    token, expires_in_s = tokens.issue(ANNA)
    identity = tokens.verify(token)
    assert (identity.user_id, identity.role, identity.api_key_id) == (ANNA.id, "user", None)
    assert expires_in_s == 600
    assert identity.expires_at is not None
    assert identity.expires_at > now()
    # The second look is answered from memory.
    assert tokens.verify(token) is identity


def test_a_token_of_a_chat_says_by_which_link() -> None:
    tokens, link = AccessTokens(SECRET), ChatLink(2**52, 1_764_360_000_123_456)
    token, _ = tokens.issue(ANNA, link)
    assert AccessTokens(SECRET).verify(token).chat == link
    assert tokens.verify(tokens.issue(ANNA)[0]).chat is None


def test_the_claims_of_this_test_are_accepted() -> None:
    # Without this, the refusals below might be for another reason.
    token = jwt.encode(claims(), SECRET, algorithm="HS256")
    assert AccessTokens(SECRET).verify(token).user_id == ANNA.id


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "another"},
        {"aud": "another"},
        {"aud": ["foretell", "another"]},
        {"exp": 1_600_000_000},
        {"exp": "soon"},
        {"exp": 10**30},
        {"exp": 10**18},
        {"exp": 10**12},
        {"iat": 4_102_444_800},
        {"nbf": 4_102_444_800},
        {"sub": "anna"},
        {"role": "root"},
        {"role": ["operator"]},
        {"role": {"operator": 1}},
        {"typ": "refresh"},
        {"chat": 5},
        {"chat": [5]},
        {"chat": [5, "then"]},
        {"chat": [5, 6, 7]},
        *({name: None} for name in ("iss", "aud", "exp", "iat", "sub", "role", "jti", "typ")),
    ],
    ids=str,
)
def test_other_claims_are_refused(changes: dict[str, Any]) -> None:
    token = jwt.encode(claims(**changes), SECRET, algorithm="HS256")
    with pytest.raises(InvalidToken):
        AccessTokens(SECRET).verify(token)


def test_another_key_is_refused() -> None:
    with pytest.raises(InvalidToken):
        AccessTokens(SECRET).verify(jwt.encode(claims(), "t" * 32, algorithm="HS256"))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_is_refused(algorithm: str) -> None:
    with pytest.raises(InvalidToken):
        AccessTokens("s" * 64).verify(jwt.encode(claims(), "s" * 64, algorithm=algorithm))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_no_algorithm_is_refused(algorithm: str) -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    for signature in ("", "x"):
        with pytest.raises(InvalidToken):
            AccessTokens(SECRET).verify(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}.{signature}")


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "\0", "é.é.é", "\ud800", "x" * 10_000_000])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        AccessTokens(SECRET).verify(token)


def test_a_changed_token_is_refused() -> None:
    tokens = AccessTokens(SECRET)
    head, body, signature = tokens.issue(ANNA)[0].split(".")
    other = claims(sub=str(UUID(int=1)), role="operator")
    forged = base64.urlsafe_b64encode(json.dumps(other).encode()).decode().rstrip("=")
    with pytest.raises(InvalidToken):
        tokens.verify(f"{head}.{forged}.{signature}")
    with pytest.raises(InvalidToken):
        tokens.verify(f"{head}.{body}.{signature[:-2]}")


def test_a_remembered_token_runs_out_all_the_same() -> None:
    at = 1_800_000_000.0
    tokens = AccessTokens(SECRET, lifetime_s=60, clock=lambda: at)
    token, _ = tokens.issue(ANNA)
    identity = tokens.verify(token)
    at += 59
    assert tokens.verify(token) is identity
    assert AccessTokens(SECRET, clock=lambda: at).verify(token) == identity
    at += 1
    for another in (tokens, AccessTokens(SECRET, clock=lambda: at)):
        with pytest.raises(InvalidToken):
            another.verify(token)


def test_the_clock_of_another_machine_may_be_a_little_ahead() -> None:
    at = 1_800_000_000.0
    token, _ = AccessTokens(SECRET, clock=lambda: at + 60).issue(ANNA)
    assert AccessTokens(SECRET, clock=lambda: at).verify(token).user_id == ANNA.id
    token, _ = AccessTokens(SECRET, clock=lambda: at + 61).issue(ANNA)
    with pytest.raises(InvalidToken):
        AccessTokens(SECRET, clock=lambda: at).verify(token)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(Misconfigured):
        AccessTokens("short")
