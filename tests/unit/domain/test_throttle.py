"""Log-in attempts: guessers are slowed down and owners are not locked out."""

import pytest

from foretell.domain.accounts.throttle import Allowance, LoginThrottle, SignupThrottle
from foretell.domain.errors import TooManyAttempts


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> LoginThrottle:
    return LoginThrottle(
        per_address=Allowance(burst=20, forgiven_after_s=6),
        per_pair=Allowance(burst=5, forgiven_after_s=30),
        per_account=Allowance(burst=10, forgiven_after_s=60),
        max_keys=1000,
        clock=clock,
    )


def attempts_until_refused(throttle: LoginThrottle, username: str, address: str) -> int:
    for attempt in range(1000):
        try:
            throttle.attempt(username, address)
        except TooManyAttempts:
            return attempt
    raise AssertionError("never refused")


def test_an_address_has_few_attempts_at_one_account(throttle: LoginThrottle) -> None:
    assert attempts_until_refused(throttle, "anna", "192.0.2.1") == 5


def test_an_address_has_few_attempts_at_all_accounts_together(throttle: LoginThrottle) -> None:
    refused = 0
    for number in range(40):
        try:
            throttle.attempt(f"user{number}", "192.0.2.1")
        except TooManyAttempts:
            refused += 1
    assert refused == 20


def test_many_addresses_together_have_few_attempts_at_one_account(throttle: LoginThrottle) -> None:
    allowed = 0
    for number in range(200):
        try:
            throttle.attempt("anna", f"198.51.100.{number}")
            allowed += 1
        except TooManyAttempts:
            pass
    assert allowed == 10


def test_the_owner_comes_in_while_everybody_guesses(throttle: LoginThrottle) -> None:
    throttle.attempt("anna", "192.0.2.1")
    throttle.succeeded("anna", "192.0.2.1")
    allowed = sum(attempts_until_refused(throttle, "anna", f"198.51.100.{number}") for number in range(200))
    assert allowed == 10
    throttle.attempt("Anna", "192.0.2.1")


def test_refusal_says_when_to_come_back_and_that_is_true(throttle: LoginThrottle, clock: Clock) -> None:
    attempts_until_refused(throttle, "anna", "192.0.2.1")
    with pytest.raises(TooManyAttempts) as refusal:
        throttle.attempt("anna", "192.0.2.1")
    assert refusal.value.retry_after_s == 30
    clock.now_s += 29
    with pytest.raises(TooManyAttempts):
        throttle.attempt("anna", "192.0.2.1")
    clock.now_s += 1
    throttle.attempt("anna", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        throttle.attempt("anna", "192.0.2.1")


def test_attempts_that_are_refused_cost_nothing(throttle: LoginThrottle, clock: Clock) -> None:
    attempts_until_refused(throttle, "anna", "192.0.2.1")
    for _ in range(1000):
        with pytest.raises(TooManyAttempts):
            throttle.attempt("anna", "192.0.2.1")
    clock.now_s += 30
    throttle.attempt("anna", "192.0.2.1")


def test_success_costs_nothing(throttle: LoginThrottle) -> None:
    for _ in range(500):
        throttle.attempt("anna", "192.0.2.1")
        throttle.succeeded("anna", "192.0.2.1")


def test_an_account_of_ones_own_buys_no_attempts_at_others(throttle: LoginThrottle) -> None:
    allowed = 0
    for number in range(100):
        throttle_open = True
        try:
            throttle.attempt(f"victim{number}", "192.0.2.1")
            allowed += 1
        except TooManyAttempts:
            throttle_open = False
        if throttle_open:
            try:
                throttle.attempt("mallory", "192.0.2.1")
                throttle.succeeded("mallory", "192.0.2.1")
            except TooManyAttempts:
                pass
    assert allowed == 20


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.1", "192.0.2.1")],
)
def test_addresses_of_one_household_are_one(throttle: LoginThrottle, one: str, other: str) -> None:
    attempts_until_refused(throttle, "anna", one)
    with pytest.raises(TooManyAttempts):
        throttle.attempt("anna", other)


def test_spellings_of_one_name_are_one(throttle: LoginThrottle) -> None:
    attempts_until_refused(throttle, "anna", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        throttle.attempt("ANNA", "192.0.2.1")


def test_memory_is_bounded_and_an_account_under_attack_is_not_forgotten(throttle: LoginThrottle) -> None:
    attempts_until_refused(throttle, "anna", "192.0.2.1")
    for number in range(5000):
        address = f"10.0.{number // 250}.{number % 250}"
        throttle.attempt(f"somebody{number}", address)
        throttle.succeeded(f"somebody{number}", address)
        if number % 500 == 0:
            with pytest.raises(TooManyAttempts):
                throttle.attempt("anna", "192.0.2.1")
    assert throttle.remembered <= 4 * 1000


def test_names_and_addresses_that_are_none_are_counted_too(throttle: LoginThrottle) -> None:
    assert attempts_until_refused(throttle, "\0" * 100_000, "unknown") == 5


def test_an_address_may_ask_for_so_many_accounts_a_day() -> None:
    at = 0.0
    throttle = SignupThrottle(3, clock=lambda: at)
    for _ in range(3):
        throttle.attempt("192.0.2.1")
    with pytest.raises(TooManyAttempts) as refused:
        throttle.attempt("192.0.2.1")
    assert refused.value.details["wait_s"] == 28_800
    throttle.attempt("192.0.2.2")
    at += 28_800
    throttle.attempt("192.0.2.1")
    for _ in range(1000):
        SignupThrottle(0).attempt("192.0.2.1")
