"""The service as a real process: its way up and down."""

import asyncio
from pathlib import Path

import httpx
from tests.model_packages import write_package
from tests.service_process import running_service

FLIGHT = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}


def test_it_comes_up_with_a_broken_package_and_says_so(tmp_path: Path) -> None:
    (write_package(tmp_path / "models", name="bent") / "model.toml").write_text("name = ")
    write_package(tmp_path / "models", name="forged", sha256="0" * 64)
    with running_service("model", tmp_path, FORETELL_MODELS_DIR=str(tmp_path / "models")) as service:
        assert httpx.post(f"{service.url}/predict", json=FLIGHT).status_code == 200
        assert "bent" in service.lines("model_unavailable")[0]["model"]
        assert service.lines("model_not_loaded")[0]["model"] == "forged"
        forged = httpx.get(f"{service.url}/models/forged").json()
        assert (forged["ready"], "sha256" in forged["reason"]) == (False, True)


async def test_a_stop_drops_no_request(tmp_path: Path) -> None:
    with running_service("model", tmp_path) as service:
        answered: list[int] = []
        stopping = False

        async def ask() -> None:
            async with httpx.AsyncClient(base_url=service.url) as client:
                while not stopping:
                    try:
                        response = await client.post("/predict", json=FLIGHT)
                    except httpx.ConnectError:
                        # It listens no more; a request that was begun is another matter.
                        return
                    answered.append(response.status_code)

        async with asyncio.timeout(60):
            askers = [asyncio.create_task(ask()) for _ in range(4)]
            while len(answered) < 50:
                await asyncio.sleep(0.01)
            status = await asyncio.to_thread(service.stop)
            stopping = True
            outcomes = await asyncio.gather(*askers, return_exceptions=True)
        assert status == 0
        assert set(answered) == {200}
        # A kept-alive connection may be closed just as its next request leaves; the client sees that and may retry.
        assert all(
            outcome is None or isinstance(outcome, httpx.RemoteProtocolError | httpx.ReadError) for outcome in outcomes
        )
        assert service.lines("service_stopped")


async def test_requests_leave_a_line_without_their_values(tmp_path: Path) -> None:
    with running_service("model", tmp_path) as service:
        response = httpx.post(
            f"{service.url}/predict", json=FLIGHT | {"carrier": "QX"}, headers={"X-Request-ID": "mine"}
        )
        assert response.headers["x-request-id"] == "mine"
        service.stop()
        # Whoever asked whether it is ready before it was has left lines, too.
        (line,) = (each for each in service.lines("request_finished") if each["route"] != "/health/ready")
        assert (line["route"], line["http.response.status_code"], line["http.request.id"]) == ("/predict", 422, "mine")
        assert all("QX" not in str(value) for line in service.lines() for value in line.values())
