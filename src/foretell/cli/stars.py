"""Returns Telegram Stars: one call of the Bot API with the token of the installation's bot."""

import os

import httpx

from foretell.kit.errors import ForetellError, Misconfigured

_USUAL_API = "https://api.telegram.org"
_TIMEOUT_S = 20.0
_ALREADY = "CHARGE_ALREADY_REFUNDED"


class StarsNotReturned(ForetellError):
    """Telegram has not given the Stars back: {reason}. The credits are taken back. Run this again."""

    code = "stars_not_returned"


def bot_token() -> str:
    """`TELEGRAM_TOKEN`, or empty."""
    return os.environ.get("TELEGRAM_TOKEN", "")


def return_stars(token: str, person_id: int, charge_id: str) -> bool:
    """Return the Stars of a charge that this person paid; False if they were returned before.

    Raises `StarsNotReturned`, `Misconfigured`.
    """
    url = (os.environ.get("TELEGRAM_API_URL") or _USUAL_API).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Misconfigured("TELEGRAM_API_URL must be http://HOST:PORT or https://HOST.")
    body = {"user_id": person_id, "telegram_payment_charge_id": charge_id}
    try:
        response = httpx.post(f"{url}/bot{token}/refundStarPayment", json=body, timeout=_TIMEOUT_S)
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Without its text and cause, because the URL contains the token.
        raise StarsNotReturned(reason=f"it does not answer ({type(error).__name__})") from None
    except ValueError:
        raise StarsNotReturned(reason=f"it answered with status {response.status_code} and no JSON") from None
    if isinstance(answer, dict) and answer.get("ok") is True:
        return True
    said = str(answer.get("description", "")) if isinstance(answer, dict) else ""
    if _ALREADY in said:
        return False
    raise StarsNotReturned(reason=said.replace(token, "…") or f"it answered with status {response.status_code}")
