"""Access tokens: short-lived JSON Web Tokens that identify the caller, verified without the database."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import jwt

from foretell.domain.accounts.identity import ROLES, ChatLink, Identity, User
from foretell.domain.errors import InvalidToken
from foretell.kit.clock import unix_s
from foretell.kit.errors import Misconfigured

_ALGORITHM = "HS256"
_MIN_SECRET_BYTES = 32
#: Issued tokens have about 350 characters.
_MAX_TOKEN_LENGTH = 2048
_MAX_REMEMBERED = 10_000
#: Clocks of two machines may differ by so much.
_LEEWAY_S = 60
_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "role", "jti", "typ"]


class AccessTokens:
    """Issues and verifies access tokens signed with one secret (HS256)."""

    def __init__(
        self,
        secret: str,
        *,
        lifetime_s: int = 1800,
        issuer: str = "foretell",
        audience: str = "foretell",
        clock: Callable[[], float] = unix_s,
    ) -> None:
        """`secret` has at least 32 bytes, else `Misconfigured`. `clock` returns seconds since 1970."""
        if len(secret.encode()) < _MIN_SECRET_BYTES:
            raise Misconfigured(f"The secret that signs access tokens must have at least {_MIN_SECRET_BYTES} bytes.")
        self._secret = secret
        self._lifetime_s = lifetime_s
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        # Verifying a signature costs about 45 us, much of a hot request, so results are cached.
        self._verified: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    def issue(self, user: User, chat: ChatLink | None = None) -> tuple[str, int]:
        """A token for `user` and its lifetime in seconds; with `chat`, it ends when the chat is unlinked."""
        # With fractions of a second: ending all tokens up to a moment must not end later ones of the same second.
        issued_at = round(self._clock(), 6)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user.id),
            "role": user.role,
            "typ": "access",
            "jti": uuid4().hex,
            "iat": issued_at,
            "exp": int(issued_at) + self._lifetime_s,
        }
        if chat is not None:
            claims["chat"] = [chat.chat_id, chat.linked_at_us]
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), self._lifetime_s

    def verify(self, token: str) -> Identity:
        """The identity in `token`. Raises `InvalidToken` if it was not issued here or has expired.

        Check in the database whether the chat of an identity is still linked (`telegram.is_linked`).
        """
        remembered = self._verified.get(token)
        if remembered is not None:
            identity, expires_at_s = remembered
            if self._clock() < expires_at_s:
                return identity
            del self._verified[token]
            raise InvalidToken
        if len(token) > _MAX_TOKEN_LENGTH:
            raise InvalidToken
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": _CLAIMS,
                    "strict_aud": True,
                    # Checked below by our clock, which ignores jumps of the machine's clock.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            self._check_times(claims)
            identity = _identity_of(claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError) as error:
            # OSError: a time that the system's calendar can't represent.
            raise InvalidToken from error
        if len(self._verified) >= _MAX_REMEMBERED:
            self._verified.popitem(last=False)
        self._verified[token] = (identity, float(claims["exp"]))
        return identity

    def _check_times(self, claims: dict[str, Any]) -> None:
        at = self._clock()
        begins = max(int(claims["iat"]), int(claims.get("nbf", 0)))
        if at >= int(claims["exp"]) or begins > at + _LEEWAY_S:
            raise ValueError("not now")


def _identity_of(claims: dict[str, Any]) -> Identity:
    if claims["typ"] != "access" or claims["role"] not in ROLES:
        raise ValueError("not an access token")
    chat = None
    if "chat" in claims:
        chat_id, linked_at_us = claims["chat"]
        chat = ChatLink(int(chat_id), int(linked_at_us))
    return Identity(
        user_id=UUID(claims["sub"]),
        role=claims["role"],
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        chat=chat,
        issued_at=float(claims["iat"]),
    )
