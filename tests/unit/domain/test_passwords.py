"""Passwords: the rules, the hashes, and a queue that has an end."""

import asyncio

import argon2
import pytest

from foretell.domain.accounts.passwords import Passwords, check_password
from foretell.domain.errors import InvalidPassword, TooManyPasswords


async def test_a_password_verifies_against_its_own_hash_only() -> None:
    passwords = Passwords()
    password_hash = await passwords.hash("correct horse")
    assert await passwords.verify(password_hash, "correct horse")
    assert not await passwords.verify(password_hash, "correct horsf")
    assert password_hash != await passwords.hash("correct horse")
    passwords.close()


async def test_hashes_are_argon2id_of_the_promised_strength() -> None:
    passwords = Passwords()
    parameters = argon2.extract_parameters(await passwords.hash("correct horse"))
    assert parameters.type is argon2.Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)
    passwords.close()


async def test_an_unknown_user_costs_a_hash_of_the_same_strength() -> None:
    # Not by the clock: the stand-in has the parameters of a real hash, so it takes the same work.
    passwords = Passwords()
    real = await passwords.hash("correct horse")
    assert argon2.extract_parameters(passwords._nobodys_hash) == argon2.extract_parameters(real)
    assert not await passwords.verify(None, "correct horse")
    passwords.close()


async def test_one_password_is_one_however_it_is_composed() -> None:
    passwords = Passwords()
    assert await passwords.verify(await passwords.hash("pass\u00e9word"), "passe\u0301word")
    passwords.close()


@pytest.mark.parametrize("password", ["correct\0horse", "\ud800" * 8, "x" * 1025])
async def test_what_cannot_be_a_password_never_verifies(password: str) -> None:
    passwords = Passwords()
    assert not await passwords.verify(await passwords.hash("correct horse"), password)
    with pytest.raises(InvalidPassword):
        await passwords.hash(password)
    passwords.close()


@pytest.mark.parametrize("password_hash", ["", "not a hash", "$argon2id$v=19$m=1,t=1,p=1$$"])
async def test_a_hash_that_is_none_verifies_nothing(password_hash: str) -> None:
    passwords = Passwords()
    assert not await passwords.verify(password_hash, "correct horse")
    passwords.close()


def test_an_older_hash_is_to_be_renewed() -> None:
    passwords = Passwords()
    weaker = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("correct horse")
    assert passwords.needs_rehash(weaker)
    passwords.close()


async def test_a_flood_is_refused_and_what_was_taken_is_answered() -> None:
    passwords = Passwords(max_parallel=1, max_waiting=2)
    outcomes = await asyncio.gather(*(passwords.verify(None, "x" * 8) for _ in range(10)), return_exceptions=True)
    assert outcomes.count(False) == 3
    assert sum(isinstance(outcome, TooManyPasswords) for outcome in outcomes) == 7
    # The queue is empty again.
    assert await passwords.verify(None, "x" * 8) is False
    passwords.close()


async def test_callers_who_give_up_do_not_make_room_before_the_work_is_done() -> None:
    passwords = Passwords(max_parallel=1, max_waiting=1)
    impatient = [asyncio.create_task(passwords.verify(None, "x" * 8)) for _ in range(2)]
    await asyncio.sleep(0)
    impatient[0].cancel()
    with pytest.raises(TooManyPasswords):
        await passwords.verify(None, "x" * 8)
    assert await impatient[1] is False
    passwords.close()


async def test_who_logs_in_does_not_wait_behind_those_who_register() -> None:
    passwords = Passwords(max_parallel=1, max_waiting=100)
    hashing = [asyncio.create_task(passwords.hash("x" * 8)) for _ in range(30)]
    await asyncio.sleep(0)
    assert await passwords.verify(None, "x" * 8) is False
    assert not all(task.done() for task in hashing)
    outcomes = await asyncio.gather(*hashing, return_exceptions=True)
    assert sum(isinstance(outcome, TooManyPasswords) for outcome in outcomes) == 30 - 21
    passwords.close()


@pytest.mark.parametrize("password", ["12345678", "пароль-пароль", "x" * 1024])
def test_allowed_passwords(password: str) -> None:
    check_password(password)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025, "1234567\0", "\ud800" * 8])
def test_refused_passwords(password: str) -> None:
    with pytest.raises(InvalidPassword):
        check_password(password)
