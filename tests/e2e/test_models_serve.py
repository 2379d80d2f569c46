"""`foretell models serve`: one package over HTTP, gone without a trace when it is told to end."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from tests.ports import free_port

from foretell.inference.registry import shipped_folder

FORETELL = (sys.executable, "-m", "foretell.cli")


async def test_one_package_is_served_alone_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    environment["FORETELL_DATA_DIR"] = str(tmp_path / "data")
    serving = subprocess.Popen(
        [*FORETELL, "models", "serve", str(shipped_folder() / "flight_delay"), "--port", str(port)],
        env={
            **environment,
            "TMPDIR": str(tmp_path),
            "HOME": str(tmp_path),
            "FORETELL_DATA_DIR": str(tmp_path / "data"),
        },
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client, asyncio.timeout(60):
            while not await _is_ready(client):
                assert serving.poll() is None
                await asyncio.sleep(0.1)
            row = {"carrier": "AA", "dep_hour": 9, "distance": 550.0, "weather_delay": 0.0}
            answer = await client.post("/models/flight-delay/predict", json=row)
            assert answer.json()["probability"] == 0.1052
            assert [model["name"] for model in (await client.post("/v2/repository/index", json={})).json()] == [
                "flight-delay"
            ]
    finally:
        serving.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(serving.wait, 30)
    assert code == 0
    # Neither ours nor a library's: onnxruntime would keep an id of this machine, and report to its maker.
    assert list(tmp_path.iterdir()) == []


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False
