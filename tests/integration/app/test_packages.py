"""Model packages that operators send: checked and installed by the app itself, or by a model service for it."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.ports import free_port
from tests.service_process import ServiceProcess, running_service

from foretell.services.app.state import AppState

from .conftest import client_of, make_state

IsProblem = Callable[[httpx.Response, int, str], None]
ADMIN_TOKEN = "5b4a392817069f8e7d6c"

# The same code for each database.
pytestmark = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)

MANIFEST = """
name = "doubler"
version = "1.0.0"
title = { en = "Doubler", ru = "Удвоитель" }
description = { en = "Doubles a number", ru = "Удваивает число" }
runtime = "python"
max_batch = 8
price_credits = 1
timeout_s = 5

[options]
class = "model:Doubler"

[[examples]]
features = { x = 1.0 }
output = { y = 2.0 }
"""
CODE = """
from pydantic import BaseModel


class Features(BaseModel):
    x: float


class Answer(BaseModel):
    y: float


class Doubler:
    def predict(self, batch: list[Features]) -> list[Answer]:
        print("a model that talks")
        return [Answer(y=2 * each.x) for each in batch]
"""


def _archive(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def _package(**changes: str) -> dict[str, str]:
    # As the types of the class give them.
    features = {"properties": {"x": {"title": "X", "type": "number"}}, "required": ["x"]}
    output = {"properties": {"y": {"title": "Y", "type": "number"}}, "required": ["y"]}
    features |= {"title": "Features", "type": "object"}
    output |= {"title": "Answer", "type": "object"}
    return {
        "doubler/model.toml": MANIFEST,
        "doubler/model.py": CODE,
        "doubler/features.schema.json": json.dumps(features),
        "doubler/output.schema.json": json.dumps(output),
    } | changes


async def _send(operator: httpx.AsyncClient, content: bytes, **parameters: Any) -> httpx.Response:
    return await operator.post(
        "/admin/models", content=content, params=parameters, headers={"Content-Type": "application/zip"}
    )


async def test_a_package_is_checked_and_installed(operator: httpx.AsyncClient, state: AppState) -> None:
    checked = await _send(operator, _archive(_package()))
    assert checked.status_code == 200, checked.text
    found = checked.json()
    assert (found["ready"], found["installed"]) == (True, False), found
    assert {each["outcome"] for each in found["findings"]} <= {"ok", "warning"}
    assert not (state.packages.folder / "doubler").exists()

    installed = (await _send(operator, _archive(_package()), install=True)).json()
    assert (installed["installed"], installed["package"]) == (True, {"name": "doubler", "version": "1.0.0"})
    state.registry.refresh_if_told()
    assert (await operator.get("/models/doubler")).json()["price"] == 1
    again = (await _send(operator, _archive(_package()), install=True)).json()
    assert (again["installed"], "installed already" in again["reason"]) == (False, True)
    entries = (await operator.get("/admin/journal", params={"subject": "models"})).json()["items"]
    assert [entry["act"] for entry in entries] == ["model.send.done", "model.send"] * 3
    assert entries[2]["after"]["installed"] is True
    assert len(entries[2]["after"]["sha256"]) == 64


async def test_a_package_that_is_wrong_is_not_installed(operator: httpx.AsyncClient, state: AppState) -> None:
    wrong = CODE.replace("2 * each.x", "3 * each.x")
    found = (await _send(operator, _archive(_package(**{"doubler/model.py": wrong})), install=True)).json()
    assert (found["ready"], found["installed"]) == (False, False)
    assert "wrong" in {each["outcome"] for each in found["findings"]}
    assert not (state.packages.folder / "doubler").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"../outside.txt": "x"},
        {"/absolute.txt": "x"},
        {"a\\b.txt": "x"},
        {"readme.txt": "no manifest"},
        {"a/model.toml": "x", "b/model.toml": "x"},
    ],
)
async def test_what_is_no_package_is_refused(
    operator: httpx.AsyncClient, files: dict[str, str], is_problem: IsProblem
) -> None:
    is_problem(await _send(operator, _archive(files)), 422, "not_a_package")


async def test_a_link_and_a_bomb_and_garbage_are_refused(
    operator: httpx.AsyncClient, state: AppState, is_problem: IsProblem
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("doubler/passwd")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    is_problem(await _send(operator, content.getvalue()), 422, "not_a_package")
    is_problem(await _send(operator, b"garbage"), 422, "not_a_package")
    small = make_state(state.settings.model_copy(update={"max_package_bytes": 100_000}), state.database)
    async with client_of(small) as client:
        client.headers.update(operator.headers)
        bomb = _archive({"doubler/model.toml": "0" * 10_000_000})
        is_problem(await _send(client, bomb), 422, "not_a_package")
        is_problem(await _send(client, b"0" * 100_001), 413, "body_too_large")
    small.passwords.close()


async def test_where_packages_may_not_be_sent_they_are_not(
    operator: httpx.AsyncClient, state: AppState, is_problem: IsProblem
) -> None:
    closed = make_state(state.settings.model_copy(update={"model_uploads": False}), state.database)
    async with client_of(closed) as client:
        client.headers.update(operator.headers)
        is_problem(await _send(client, _archive(_package())), 403, "no_uploads")
    closed.passwords.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A model service that takes packages from whoever has the token."""
    folder = tmp_path_factory.mktemp("model")
    settings = {"FORETELL_ADMIN_TOKEN": ADMIN_TOKEN, "FORETELL_MAX_PACKAGE_BYTES": "100000"}
    with running_service("model", folder, FORETELL_MODELS_DIR=str(folder / "models"), **settings) as service:
        yield service


@pytest.fixture
async def remote(
    state: AppState, operator: httpx.AsyncClient, service: ServiceProcess
) -> AsyncIterator[httpx.AsyncClient]:
    """The client of an app that has packages checked there."""
    settings = {"package_service_url": service.url, "admin_token": SecretStr(ADMIN_TOKEN)}
    async with _other(state, operator, **settings) as client:
        yield client


@asynccontextmanager
async def _other(state: AppState, operator: httpx.AsyncClient, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The client of an app with other settings."""
    other = make_state(state.settings.model_copy(update=settings), state.database)
    async with client_of(other) as client:
        client.headers.update(operator.headers)
        yield client
    other.passwords.close()


async def test_a_model_service_checks_and_installs_for_the_app(
    remote: httpx.AsyncClient, service: ServiceProcess, state: AppState, is_problem: IsProblem
) -> None:
    found = (await _send(remote, _archive(_package()))).json()
    assert (found["ready"], found["installed"]) == (True, False), found
    installed = (await _send(remote, _archive(_package()), install=True)).json()
    assert (installed["installed"], installed["package"]) == (True, {"name": "doubler", "version": "1.0.0"})
    # It is there, and not here.
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        while (answer := await client.post("/models/doubler/predict", json={"x": 4})).status_code in (404, 503):
            await asyncio.sleep(0.1)
        assert answer.json()["y"] == 8.0
    assert not state.packages.folder.exists()
    again = (await _send(remote, _archive(_package()), install=True)).json()
    assert (again["installed"], "installed already" in again["reason"]) == (False, True)
    replaced = (await _send(remote, _archive(_package()), install=True, replace=True)).json()
    assert replaced["installed"] is True
    is_problem(await _send(remote, b"garbage"), 422, "not_a_package")
    entries = (await remote.get("/admin/journal", params={"subject": "models"})).json()["items"]
    assert entries[0]["after"] == {"failed": "not_a_package"}
    assert len(entries[2]["after"]["sha256"]) == 64


async def test_a_model_service_that_refuses_or_is_not_there(
    state: AppState, operator: httpx.AsyncClient, service: ServiceProcess, is_problem: IsProblem
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for url, says in ((service.url, "admin token"), (nobody, "does not answer")):
        settings = {"package_service_url": url, "admin_token": SecretStr("another token, just as long")}
        async with _other(state, operator, **settings) as client:
            answer = await _send(client, _archive(_package()), install=True)
        is_problem(answer, 503, "cannot_check")
        assert says in answer.json()["detail"]
