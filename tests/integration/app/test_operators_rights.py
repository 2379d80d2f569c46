"""Who may act below `/admin` at the moment of the act, and that somebody always may."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest

from foretell.domain.accounts import registration
from foretell.domain.errors import LastOperator, NotOperator
from foretell.domain.operators import journal, users
from foretell.domain.operators.journal import Actor
from foretell.services.app.routes.admin import reports
from foretell.services.app.state import AppState

from .conftest import PASSWORD, Account

IsProblem = Callable[[httpx.Response, int, str], None]
Submit = Callable[..., Awaitable[UUID]]
Finish = Callable[..., Awaitable[None]]

COMMAND_LINE = Actor(None, "command line: root", "machine")


async def _operator(state: AppState, username: str) -> Account:
    password_hash = await state.passwords.hash(PASSWORD)
    async with state.database.transaction() as connection:
        user = await users.add(
            connection, COMMAND_LINE, username=username, password_hash=password_hash, credits=0, role="operator"
        )
    token, _ = state.access_tokens.issue(user)
    return Account(user.id, {"Authorization": f"Bearer {token}"})


@pytest.fixture
async def olga(state: AppState) -> Account:
    """An operator, with a password."""
    return await _operator(state, "olga")


@pytest.fixture
async def oleg(state: AppState) -> Account:
    """Another one."""
    return await _operator(state, "oleg")


async def _is(state: AppState, account: Account) -> tuple[str, bool]:
    async with state.database.snapshot() as connection:
        user = await registration.find_user_by_id(connection, account.id)
    return user.role, user.active


async def _entries(state: AppState, account: Account) -> list[journal.Entry]:
    async with state.database.snapshot() as connection:
        return list(await journal.page(connection, limit=50, subject=f"user:{account.id}"))


async def test_the_last_operator_does_not_close_their_account(
    client: httpx.AsyncClient, state: AppState, olga: Account, oleg: Account, is_problem: IsProblem
) -> None:
    async def close(account: Account) -> httpx.Response:
        return await client.request("DELETE", "/users/me", json={"password": PASSWORD}, headers=account.headers)

    assert (await close(oleg)).status_code == 204
    # A closed account is no operator, whatever its role.
    is_problem(await close(olga), 409, "last_operator")
    assert await _is(state, olga) == ("operator", True)
    assert (await client.get("/admin/users", headers=olga.headers)).status_code == 200


@pytest.mark.parametrize("act", ["block", "demote", "close"])
async def test_operators_who_end_one_another_leave_one(state: AppState, olga: Account, oleg: Account, act: str) -> None:
    both_began = asyncio.Barrier(2)

    async def end(actor: Account, other: Account) -> None:
        if state.database.dialect == "postgresql":
            # Both are operators when they begin.
            await both_began.wait()
        async with state.database.transaction() as connection:
            who = Actor(actor.id, "somebody")
            if act == "block":
                await users.block(connection, who, other.id)
            elif act == "demote":
                await users.set_role(connection, who, other.id, "user")
            else:
                await registration.close(connection, actor.id)

    outcomes = await asyncio.gather(end(olga, oleg), end(oleg, olga), return_exceptions=True)
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert [type(each) for each in refused] == [LastOperator]
    left = [account for account in (olga, oleg) if await _is(state, account) == ("operator", True)]
    assert len(left) == 1


async def test_the_command_line_may_stop_the_only_operator(state: AppState, olga: Account) -> None:
    async with state.database.transaction() as connection:
        await users.block(connection, COMMAND_LINE, olga.id)
    assert await _is(state, olga) == ("operator", False)


async def test_whoever_is_no_operator_when_the_body_has_arrived_does_nothing(
    client: httpx.AsyncClient, state: AppState, olga: Account, oleg: Account, ada: Account, is_problem: IsProblem
) -> None:
    async def post(path: str, body: bytes, who: Account, meanwhile: Callable[[Any], Awaitable[Any]]) -> httpx.Response:
        async def content() -> AsyncIterator[bytes]:
            yield body[:1]
            async with state.database.transaction() as connection:
                await meanwhile(connection)
            yield body[1:]

        headers = {**who.headers, "Content-Type": "application/json"}
        return await client.post(path, content=content(), headers=headers)

    def demote(connection: Any) -> Awaitable[Any]:
        return users.set_role(connection, COMMAND_LINE, olga.id, "user")

    def block(connection: Any) -> Awaitable[Any]:
        return users.block(connection, COMMAND_LINE, oleg.id)

    path = f"/admin/users/{ada.id}"
    is_problem(await post(f"{path}/grant", b'{"credits": 5}', olga, demote), 404, "not_found")
    for act, body in (("block", b"{}"), ("role", b'{"role": "operator"}'), ("refund", b'{"credits": 5}')):
        async with state.database.transaction() as connection:
            await users.unblock(connection, COMMAND_LINE, oleg.id)
        user_token, _ = state.access_tokens.issue(await _user(state, oleg))
        again = Account(oleg.id, {"Authorization": f"Bearer {user_token}"})
        is_problem(await post(f"{path}/{act}", body, again, block), 404, "not_found")
    assert await _is(state, ada) == ("user", True)
    assert await _entries(state, ada) == []
    assert (await client.get("/balance", headers=ada.headers)).json()["available"] == 100


async def _user(state: AppState, account: Account) -> Any:
    async with state.database.snapshot() as connection:
        return await registration.find_user_by_id(connection, account.id)


async def test_what_came_of_an_act_is_written_down_whoever_acted_is_by_now(state: AppState, ada: Account) -> None:
    nobody = Actor(ada.id, "ada")
    with pytest.raises(NotOperator):
        async with state.database.transaction() as connection:
            await journal.write(connection, nobody, "queue.redrive", f"user:{ada.id}")
    async with state.database.transaction() as connection:
        await journal.write_outcome(connection, nobody, "queue.redrive.done", f"user:{ada.id}")
    assert [entry.act for entry in await _entries(state, ada)] == ["queue.redrive.done"]


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("refund:019ab3c4-0000-7000-8000-000000000000", "invalid_reference"),
        (" refund:1", "invalid_reference"),
        ("telegram:charge", "invalid_reference"),
        ("telegram-refund:charge", "invalid_reference"),
        (" \t", "invalid_reference"),
        ("", "invalid_request"),
    ],
)
async def test_references_of_our_own_are_nobody_elses(
    client: httpx.AsyncClient, olga: Account, ada: Account, is_problem: IsProblem, reference: str, code: str
) -> None:
    path = f"/admin/users/{ada.id}/grant"
    answer = await client.post(path, json={"credits": 5, "reference": reference}, headers=olga.headers)
    is_problem(answer, 422, code)
    fine = await client.post(path, json={"credits": 5, "reference": "my-refund:1"}, headers=olga.headers)
    assert fine.json()["available"] == 105


async def test_the_note_of_a_refund_is_kept(
    client: httpx.AsyncClient, state: AppState, olga: Account, ada: Account, submit: Submit, finish: Finish
) -> None:
    done = await submit(ada, price=7)
    await finish(done)
    body = {"prediction_id": str(done), "note": "it was late"}
    answer = await client.post(f"/admin/users/{ada.id}/refund", json=body, headers=olga.headers)
    assert answer.status_code == 200, answer.text
    newest = (await client.get("/transactions", headers=ada.headers)).json()["items"][0]
    assert (newest["kind"], newest["note"]) == ("refund", "it was late")
    (entry,) = await _entries(state, ada)
    assert entry.after is not None
    assert entry.after["note"] == "it was late"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/admin/users/{id}/grant", {"credits": True}),
        ("/admin/users/{id}/grant", {"credits": "7"}),
        ("/admin/users/{id}/grant", {"credits": 7.0}),
        ("/admin/users/{id}/refund", {"credits": True}),
        ("/admin/queues/ml_tasks/redrive", {"limit": "7"}),
        ("/admin/queues/ml_tasks/discard", {"confirm": False}),
        ("/admin/alerts/1/silence", {"minutes": "5"}),
        ("/admin/models/flight-delay/price", {"price_credits": True}),
        ("/admin/models/flight-delay/traffic", {"weights": {"1.0.0": True}}),
    ],
)
async def test_what_is_no_number_is_none(
    client: httpx.AsyncClient, olga: Account, ada: Account, is_problem: IsProblem, path: str, body: dict[str, Any]
) -> None:
    method = "PUT" if "/models/" in path else "POST"
    answer = await client.request(method, path.replace("{id}", str(ada.id)), json=body, headers=olga.headers)
    is_problem(answer, 422, "invalid_request")


async def test_the_journal_tells_of_every_block(
    client: httpx.AsyncClient, state: AppState, olga: Account, oleg: Account, ada: Account, is_problem: IsProblem
) -> None:
    path = f"/admin/users/{ada.id}/block"
    for reason in ("abuse", "abuse", None, "it is a machine"):
        body = {} if reason is None else {"reason": reason}
        assert (await client.post(path, json=body, headers=olga.headers)).status_code == 200
    assert [(entry.before, entry.after) for entry in await _entries(state, ada)] == [
        ({"active": False, "reason": "abuse"}, {"active": False, "reason": "it is a machine"}),
        ({"active": True}, {"active": False, "reason": "abuse"}),
    ]
    closing = await client.request("DELETE", "/users/me", json={"password": PASSWORD}, headers=oleg.headers)
    assert closing.status_code == 204
    refused = await client.post(f"/admin/users/{oleg.id}/block", json={"reason": "late"}, headers=olga.headers)
    is_problem(refused, 409, "account_closed")


async def test_a_package_of_whoever_is_no_operator_any_more_is_not_looked_at(
    client: httpx.AsyncClient, state: AppState, olga: Account, is_problem: IsProblem
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"no "
        async with state.database.transaction() as connection:
            await users.set_role(connection, COMMAND_LINE, olga.id, "user")
        yield b"package"

    headers = {**olga.headers, "Content-Type": "application/zip"}
    answer = await client.post("/admin/models", params={"install": True}, content=content(), headers=headers)
    is_problem(answer, 404, "not_found")
    async with state.database.snapshot() as connection:
        entries = await journal.page(connection, limit=50, subject="models")
    assert [(entry.act, entry.after) for entry in entries] == [
        ("model.send.done", {"failed": "not_found"}),
        ("model.send", None),
    ]


async def test_lines_end_for_whoever_is_no_operator_any_more(
    state: AppState, olga: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_parameters: Any) -> AsyncIterator[list[Any]]:
        while True:
            yield [{"message": "a line"}]

    monkeypatch.setattr(state.monitoring, "follow_logs", endless)
    token = olga.headers["Authorization"].removeprefix("Bearer ")
    # As if by a session, which a change of the role does not end.
    caller = await state.authenticator.identify(token)
    async with aclosing(reports._lines(state, {}, partial(reports._still_in, state, caller, token))) as stream:
        for _ in range(50):
            await anext(stream)
        async with state.database.transaction() as connection:
            await users.set_role(connection, COMMAND_LINE, olga.id, "user")
        assert len([part async for part in stream]) < 50
