"""Triton's own client against a real process, as it comes: its synchronous and its asynchronous half."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy
import pytest
import tritonclient.http
import tritonclient.http.aio
from tests.service_process import ServiceProcess, running_service
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

TOKEN = "a token that is long enough"
_GZIPPED = {"Content-Encoding": "gzip"}
ADMIN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with running_service("model", tmp_path_factory.mktemp("model"), FORETELL_ADMIN_TOKEN=TOKEN) as service:
        yield service


@pytest.fixture
def client(service: ServiceProcess) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        yield client


def _inputs(rows: int = 1, *, binary: bool = True, columns: tuple[int, ...] = ()) -> list[Any]:
    values = {
        "carrier": numpy.full((rows, *columns), "AA", dtype=object),
        "dep_hour": numpy.full((rows, *columns), 9, dtype=numpy.int64),
        "distance": numpy.full((rows, *columns), 550, dtype=numpy.float32),
        "weather_delay": numpy.zeros((rows, *columns), dtype=numpy.float64),
    }
    datatypes = {"carrier": "BYTES", "dep_hour": "INT64", "distance": "FP32", "weather_delay": "FP64"}
    inputs = []
    for name, array in values.items():
        made = InferInput(name, list(array.shape), datatypes[name])
        made.set_data_from_numpy(array, binary_data=binary)
        inputs.append(made)
    return inputs


def test_the_server_says_what_it_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "foretell"


def test_a_model_says_what_it_takes(client: Any) -> None:
    assert client.is_model_ready("flight-delay")
    assert client.is_model_ready("flight-delay", "1.0.0")
    assert not client.is_model_ready("flight-delay", "2.0.0")
    assert not client.is_model_ready("nobody")
    metadata = client.get_model_metadata("flight-delay")
    assert [(entry["name"], entry["datatype"], entry["shape"]) for entry in metadata["inputs"]] == [
        ("carrier", "BYTES", [-1]),
        ("dep_hour", "INT64", [-1]),
        ("distance", "FP64", [-1]),
        ("weather_delay", "FP64", [-1]),
    ]
    assert client.get_model_config("flight-delay")["name"] == "flight-delay"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("columns", [(), (1,)])
@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_it_infers(client: Any, binary: bool, columns: tuple[int, ...], rows: int) -> None:
    result = client.infer("flight-delay", _inputs(rows, binary=binary, columns=columns), request_id="7")
    assert result.get_response()["id"] == "7"
    assert result.as_numpy("prediction").tolist() == [0] * rows
    assert result.as_numpy("probability").tolist() == [0.1052] * rows


def test_outputs_are_chosen_and_may_be_json(client: Any) -> None:
    wanted = [InferRequestedOutput("probability", binary_data=False)]
    result = client.infer("flight-delay", _inputs(2), outputs=wanted, model_version="1.0.0")
    assert result.get_response()["outputs"] == [
        {"name": "probability", "datatype": "FP64", "shape": [2], "data": [0.1052, 0.1052]}
    ]
    assert result.as_numpy("prediction") is None


def test_errors_reach_the_caller_in_words(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"\[400\] Row 0: carrier is missing"):
        client.infer("flight-delay", _inputs()[1:])
    with pytest.raises(InferenceServerException, match=r"\[404\] There is no model nobody"):
        client.infer("nobody", _inputs())
    with pytest.raises(InferenceServerException, match=r"\[401\] This needs the admin token"):
        client.unload_model("flight-delay")


def test_the_repository(client: Any) -> None:
    index = client.get_model_repository_index(headers=ADMIN)
    assert {"name": "flight-delay", "version": "1.0.0", "state": "READY", "reason": ""} in index
    client.unload_model("flight-delay", headers=ADMIN)
    assert not client.is_model_ready("flight-delay")
    with pytest.raises(InferenceServerException, match=r"\[400\] .* It was unloaded"):
        client.infer("flight-delay", _inputs())
    client.load_model("flight-delay", headers=ADMIN)
    assert client.is_model_ready("flight-delay")


async def test_the_asynchronous_client(service: ServiceProcess) -> None:
    async with tritonclient.http.aio.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("flight-delay"))["versions"] == ["1.0.0"]
        results = await asyncio.gather(*(client.infer("flight-delay", _inputs(rows)) for rows in range(1, 20)))
        for rows, result in enumerate(results, 1):
            assert result.as_numpy("probability").tolist() == [0.1052] * rows
        with pytest.raises(InferenceServerException, match=r"There is no model nobody"):
            await client.infer("nobody", _inputs())


def test_a_model_is_reloaded_without_a_dropped_request(service: ServiceProcess) -> None:
    def infer(times: int) -> int:
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
            return sum(len(client.infer("flight-delay", _inputs()).as_numpy("prediction")) for _ in range(times))

    with (
        ThreadPoolExecutor(3) as threads,
        tritonclient.http.InferenceServerClient(f"127.0.0.1:{service.port}") as client,
    ):
        callers = [threads.submit(infer, 100) for _ in range(3)]
        for _ in range(3):
            client.load_model("flight-delay", headers=ADMIN)
        assert [caller.result() for caller in callers] == [100] * 3


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_its_compression_of_requests_works(client: Any, algorithm: str, binary: bool) -> None:
    plain = client.infer("flight-delay", _inputs(3, binary=binary))
    packed = client.infer("flight-delay", _inputs(3, binary=binary), request_compression_algorithm=algorithm)
    assert packed.as_numpy("probability").tolist() == plain.as_numpy("probability").tolist()


def test_a_compressed_row_of_the_hot_route(service: ServiceProcess) -> None:
    """Which is answered past ASGI otherwise."""
    row = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
    with httpx.Client(base_url=service.url) as asking:
        plain = asking.post("/predict", json=row).json()
        packed = asking.post("/predict", content=gzip.compress(json.dumps(row).encode()), headers=_GZIPPED)
    assert packed.json()["probability"] == plain["probability"]
