"""Changes of models need the admin token."""

from hmac import compare_digest

from foretell.kit.errors import ForetellError
from foretell.kit.routing import Request


class AdminTokenNeeded(ForetellError):
    """This needs the admin token of this service: Authorization: Bearer TOKEN."""

    code = "admin_token_needed"
    status = 401


class AdminTokenNotSet(ForetellError):
    """Models can be loaded, unloaded and sent only where FORETELL_ADMIN_TOKEN is set."""

    code = "admin_token_not_set"
    status = 403


class AdminToken:
    """Checks the installation's admin token; without one, every request is refused."""

    def __init__(self, token: str) -> None:
        self._expected = f"bearer {token}".encode() if token else b""

    @property
    def is_set(self) -> bool:
        """Whether a token is configured."""
        return bool(self._expected)

    def check(self, request: Request) -> None:
        """Raises `AdminTokenNotSet`, `AdminTokenNeeded`."""
        if not self._expected:
            raise AdminTokenNotSet
        scheme, _, token = (request.header(b"authorization") or b"").partition(b" ")
        if not compare_digest(scheme.lower() + b" " + token.strip(), self._expected):
            raise AdminTokenNeeded
