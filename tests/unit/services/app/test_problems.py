"""Errors as problems."""

import inspect
import json

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from foretell.domain import errors
from foretell.domain.errors import InvalidCredentials, NotEnoughCredits, TooManyAttempts
from foretell.kit.errors import ForetellError, MayBeDone, Misconfigured, Unavailable
from foretell.kit.problems import InvalidRequest, pointer, problem_bytes
from foretell.services.app import problems


def _problem(error: ForetellError) -> tuple[int, dict[bytes, bytes], dict[str, object]]:
    status, headers, body = problem_bytes(error, "/here")
    return status, dict(headers), json.loads(body)


def test_details_travel_beside_the_message() -> None:
    status, headers, problem = _problem(NotEnoughCredits(price=3, available=2))
    assert status == problem["status"] == 402
    assert headers[b"content-type"] == b"application/problem+json"
    assert problem == {
        "type": "urn:problem-type:foretell:not_enough_credits",
        "title": "Payment Required",
        "status": 402,
        "detail": "This costs 3 credits and only 2 are available. Top up the balance and try again.",
        "code": "not_enough_credits",
        "instance": "/here",
        "price": 3,
        "available": 2,
    }


def test_a_detail_never_takes_the_place_of_a_field() -> None:
    _, _, problem = _problem(errors.AlreadyFinished(status="failed"))
    assert problem["status"] == 409


def test_waiting_is_said_in_whole_seconds_and_never_none() -> None:
    assert _problem(Unavailable(part="database"))[1][b"retry-after"] == b"2"
    assert _problem(TooManyAttempts(wait_s=3, retry_after_s=2.2))[1][b"retry-after"] == b"3"
    assert _problem(Unavailable(part="database", retry_after_s=0.01))[1][b"retry-after"] == b"1"


def test_who_is_not_known_is_told_how_to_be() -> None:
    assert b"Bearer" in _problem(InvalidCredentials())[1][b"www-authenticate"]


def test_an_error_of_ours_says_nothing_about_itself() -> None:
    status, _, problem = _problem(Misconfigured("the password of the database is hunter2"))
    assert status == 500
    assert "hunter2" not in json.dumps(problem)


def test_every_error_of_the_domain_has_its_own_code_and_a_status_for_callers() -> None:
    found = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, ForetellError)]
    found.remove(ForetellError)
    # Whoever is no operator must not see that there is something.
    assert errors.NotOperator.code == errors.NotFound.code
    found.remove(errors.NotOperator)
    # The same refusal in other words.
    assert errors.ChatMayNot.code == errors.Forbidden.code
    found.remove(errors.ChatMayNot)
    assert len({error.code for error in found}) == len(found)
    assert all(400 <= error.status < 500 for error in found)


def test_an_answer_of_5xx_says_whether_it_may_be_done() -> None:
    assert _problem(Unavailable(part="database"))[2]["outcome"] == "not_done"
    assert _problem(MayBeDone(part="database"))[2]["outcome"] == "unknown"
    assert _problem(MayBeDone(part="database"))[2]["code"] == Unavailable.code
    assert _problem(Misconfigured("secret"))[2]["outcome"] == "unknown"
    assert "outcome" not in _problem(NotEnoughCredits(price=3, available=2))[2]
    assert json.loads(problem_bytes(Misconfigured(), "/here", reads_only=True)[2])["outcome"] == "not_done"


def test_pointers_escape_what_has_a_meaning() -> None:
    assert pointer() == "#"
    assert pointer("input", "a/b", "c~d", 0, "é %") == "#/input/a~1b/c~0d/0/%C3%A9%20%25"


def test_there_are_never_more_than_fifty_errors() -> None:
    _, _, problem = _problem(InvalidRequest([{"detail": "x", "pointer": "#"}] * 1000))
    assert len(problem["errors"]) == 50  # type: ignore[arg-type]


class _Wanted(BaseModel):
    password: str
    confirmed: bool
    reason: str = ""


@pytest.fixture
def api() -> FastAPI:
    api = FastAPI()
    problems.install(api, {"/explained": ["GET"]})

    @api.get("/explained")
    async def explained() -> None:
        raise Unavailable(part="database")

    @api.get("/ours")
    async def ours() -> None:
        raise Misconfigured("hunter2")

    @api.get("/unforeseen")
    async def unforeseen() -> None:
        raise RuntimeError("hunter2")

    @api.delete("/closed")
    async def closed(wanted: _Wanted) -> None:
        raise AssertionError("nothing was sent")

    return api


@pytest.mark.parametrize(
    ("path", "status"), [("/explained", 503), ("/ours", 500), ("/unforeseen", 500), ("/absent", 404)]
)
async def test_whatever_happens_the_answer_is_a_problem(api: FastAPI, path: str, status: int) -> None:
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get(path)
    assert response.status_code == response.json()["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in response.text


async def test_a_wrong_method_is_told_the_right_ones(api: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        response = await client.delete("/explained")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert response.json()["code"] == "method_not_allowed"


async def test_no_refusal_makes_the_whole_document_first(api: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "openapi", None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        assert (await client.get("/absent")).status_code == 404
        assert (await client.delete("/explained")).status_code == 405


async def test_without_a_body_every_field_that_is_needed_is_named(api: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        response = await client.delete("/closed")
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/password", "#/confirmed"]
