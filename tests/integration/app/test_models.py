"""The catalogue of models, on an API without any database."""

from collections.abc import AsyncIterator, Callable

import httpx
import jsonschema_rs
import pytest

from foretell.contracts.fields import fields_of, read_fields
from foretell.kit.database import Database
from foretell.services.app.api import _methods
from foretell.services.app.settings import AppSettings

from .conftest import client_of, make_state


@pytest.fixture
def empty_database_url() -> str:
    """Nothing here asks a database, so none is made."""
    return "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
async def client(settings: AppSettings, empty_database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    state = make_state(settings.model_copy(update={"prices": {"flight-delay": 7}}), Database(empty_database_url))
    async with client_of(state) as client:
        yield client


async def test_every_model_is_listed_with_its_price_and_its_schemas(client: httpx.AsyncClient) -> None:
    models = (await client.get("/models")).json()["items"]
    flight = next(model for model in models if model["name"] == "flight-delay")
    assert flight["price"] == 7
    assert flight["version"] == flight["default_version"] == flight["versions"][-1]
    assert set(flight["title"]) == set(flight["description"]) == {"en", "ru"}
    for schema in ("input_schema", "features_schema", "output_schema"):
        assert flight[schema]["type"] == "object"
    assert flight["examples"]
    assert (await client.get("/models/flight-delay")).json() == flight


async def test_examples_fit_the_schemas_beside_them(client: httpx.AsyncClient) -> None:
    checked = 0
    for model in (await client.get("/models")).json()["items"]:
        for example in model["examples"]:
            for part in ("input", "features", "output"):
                if example[part] is not None:
                    jsonschema_rs.Draft202012Validator(model[f"{part}_schema"]).validate(example[part])
                    checked += 1
    assert checked >= 2


async def test_the_fields_of_a_model_are_its_input_as_a_form(client: httpx.AsyncClient) -> None:
    flight = (await client.get("/models/flight-delay")).json()
    assert [(field["name"], field["kind"]) for field in flight["fields"]] == [
        ("carrier", "choice"),
        ("departure_time", "time"),
        ("distance_miles", "number"),
        ("weather_code", "choice"),
    ]
    assert flight["fields"][2] == {
        "name": "distance_miles",
        "kind": "number",
        "title": {"en": "Distance", "ru": "Расстояние"},
        "description": {
            "en": "Length of the flight",
            "ru": "Длина маршрута",
        },
        "required": True,
        "nullable": False,
        "example": 550.0,
        "unit": {"en": "miles", "ru": "мили"},
        "exclusive_minimum": 0,
        "maximum": 5000,
    }
    components = (await client.get("/openapi.json")).json()["components"]["schemas"]
    described = jsonschema_rs.Draft202012Validator(
        {"$ref": "#/components/schemas/Model", "components": {"schemas": components}}
    )
    for model in (await client.get("/models")).json()["items"]:
        described.validate(model)
        assert read_fields(model["fields"]) == fields_of(model["input_schema"])


async def test_an_absent_model_or_version_is_404(
    client: httpx.AsyncClient, is_problem: Callable[[httpx.Response, int, str], None]
) -> None:
    is_problem(await client.get("/models/crystal-ball"), 404, "model_not_found")
    is_problem(await client.get("/models/flight-delay?version=0.0.0"), 404, "model_not_found")
    is_problem(await client.get("/models/%00"), 422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/predictions/019a8d5e-8c40-7000-8000-0123456789ab", {"GET", "DELETE"}),
        ("OPTIONS", "/api-keys", {"GET", "POST"}),
        ("GET", "/predictions/predict", {"POST"}),
        ("DELETE", "/models", {"GET"}),
    ],
)
async def test_a_wrong_method_is_told_every_right_one(
    client: httpx.AsyncClient,
    is_problem: Callable[[httpx.Response, int, str], None],
    method: str,
    path: str,
    allowed: set[str],
) -> None:
    response = await client.request(method, path)
    is_problem(response, 405, "method_not_allowed")
    # Where GET is, HEAD is.
    assert set(response.headers["allow"].split(", ")) == allowed | ({"HEAD"} if "GET" in allowed else set())


async def test_the_methods_that_are_named_are_those_of_the_document(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    documented = {path: sorted(method.upper() for method in operations) for path, operations in paths.items()}
    assert {path: sorted(methods) for path, methods in _methods().items()} == documented
