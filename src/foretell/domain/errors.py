"""Every error that the domain raises. The docstring is the message that a user reads."""

from foretell.kit.errors import ForetellError


class NotFound(ForetellError):
    """There is no such {what}."""

    code = "not_found"
    status = 404


class ChatNotLinked(NotFound):
    """This chat acts for no account."""

    # Its own code: the bot drops messages for such a chat, and must not do so when its secret is wrong.
    code = "chat_not_linked"


class NotEnoughCredits(ForetellError):
    """This costs {price} credits and only {available} are available. Top up the balance and try again."""

    code = "not_enough_credits"
    status = 402


class IdempotencyKeyReused(ForetellError):
    """This Idempotency-Key was used before with another request. Use a new key for a new request."""

    code = "idempotency_key_reused"
    status = 422


class IdempotencyKeyInFlight(ForetellError):
    """A request with this Idempotency-Key is being handled right now. Try again in a moment."""

    code = "idempotency_key_in_flight"
    status = 409
    retry_after_s = 1.0


class AlreadyFinished(ForetellError):
    """This prediction has already ended ({status}) and can't be canceled."""

    code = "already_finished"
    status = 409


class UsernameTaken(ForetellError):
    """The user name {username} is taken. Choose another one."""

    code = "username_taken"
    status = 409


class InvalidCredentials(ForetellError):
    """The user name or the password is wrong."""

    code = "invalid_credentials"
    status = 401


class WrongPassword(ForetellError):
    """The password is wrong."""

    code = "wrong_password"
    status = 403


class InvalidToken(ForetellError):
    """The token or API key is missing, wrong or out of date. Take a new one with POST /token."""

    code = "invalid_token"
    status = 401
    challenge = 'error="invalid_token"'


class TooManyAttempts(ForetellError):
    """Too many attempts. Try again in {wait_s} seconds."""

    code = "too_many_attempts"
    status = 429


class TooManyPasswords(ForetellError):
    """More passwords wait to be checked than can be. Try again in a moment."""

    code = "too_many_passwords"
    # 429 and not 503: a flood of log-ins must not raise an alert.
    status = 429
    retry_after_s = 2.0


class Forbidden(ForetellError):
    """Your account may not do this."""

    code = "forbidden"
    status = 403


class ChatMayNot(Forbidden):
    """A Telegram chat may not do this for its account. Log in with the account itself."""


class DuplicateReference(ForetellError):
    """A movement with the reference {reference} is in the ledger already."""

    code = "duplicate_reference"
    status = 409


class InvalidUsername(ForetellError):
    """A user name has 3 to 64 characters: letters, digits and . _ - @ +"""

    code = "invalid_username"
    status = 422


class InvalidPassword(ForetellError):
    """A password has {min_length} to {max_length} characters and no NUL."""

    code = "invalid_password"
    status = 422


class InvalidName(ForetellError):
    """A name has 1 to {max_length} printable characters."""

    code = "invalid_name"
    status = 422


class TooManyKeys(ForetellError):
    """An account has at most {limit} API keys. Revoke one that is no longer used."""

    code = "too_many_keys"
    status = 409


class NotRefundable(ForetellError):
    """This prediction has cost nothing, so there is nothing to give back."""

    code = "not_refundable"
    status = 409


class NotYourself(ForetellError):
    """Nobody blocks themselves or gives away their own role: ask another operator."""

    code = "not_yourself"
    status = 409


class InvalidAmount(ForetellError):
    """{amount} is not an amount that can be moved: take a whole number of credits from {lowest} to {highest}."""

    code = "invalid_amount"
    status = 422


class UnknownLinkCode(ForetellError):
    """This link is not known, was used already or is older than 15 minutes. Make a new one."""

    code = "unknown_link_code"
    status = 404


class ChatIsLinked(ForetellError):
    """This chat belongs to another account. Unlink it first."""

    code = "chat_is_linked"
    status = 409


class TooManyChats(ForetellError):
    """An account has at most {limit} chats. Unlink one that is no longer used."""

    code = "too_many_chats"
    status = 409


class PaymentDiffers(ForetellError):
    """The charge {charge_id} was told before with another chat, price or number of credits."""

    code = "payment_differs"
    status = 409


class CreditsSpent(ForetellError):
    """Of the {credits} credits of this payment only {available} are still there."""

    code = "credits_spent"
    status = 409


class TooManyEndpoints(ForetellError):
    """An account has at most {limit} webhooks. Remove one that is no longer used."""

    code = "too_many_webhooks"
    status = 409


class TooManyRotations(ForetellError):
    """This secret was changed {limit} times within 24 hours, and all of those still sign. Change it after {free_at}."""

    code = "too_many_rotations"
    status = 409


class TooManyRedeliveries(ForetellError):
    """{limit} events wait already to be sent to this webhook once more. Wait, or ask for all since a moment."""

    code = "too_many_redeliveries"
    status = 409


class LastOperator(ForetellError):
    """This is the only operator there is: make another one first."""

    code = "last_operator"
    status = 409


class AccountClosed(ForetellError):
    """The owner closed this account, so nobody can use it; there is nothing to block."""

    code = "account_closed"
    status = 409


class NotOperator(ForetellError):
    """There is nothing at this address."""

    # The same answer as for all users who are not operators.
    code = "not_found"
    status = 404


class InvalidReference(ForetellError):
    """A reference must not be blank or begin with {prefixes}: those are of other movements."""

    code = "invalid_reference"
    status = 422
