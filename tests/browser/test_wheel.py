"""`pip install foretell` alone brings a whole product: services, both models, the page."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.lean_python import build_wheel, install
from tests.ports import free_port

_FLIGHT = ("carrier=AA", "departure_time=17:45", "distance_miles=1389", "weather_code=4")


@pytest.mark.timeout(600)
def test_an_installation_by_pip_starts_predicts_and_shows_its_page(web: Path, tmp_path: Path) -> None:
    assert web.is_dir()
    python = install(tmp_path / "home" / ".venv", build_wheel(tmp_path, page=True))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL_")}
    services = ("APP", "MODEL", "PREPROCESSING", "MONITORING")
    environment = inherited | {f"FORETELL_{name}_PORT": str(free_port()) for name in services}

    def foretell(*arguments: str, folder: Path = tmp_path / "home") -> str:
        command = [python.with_name("foretell"), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    try:
        foretell("up", "--detach", "--workers", "1")
        url = f"http://localhost:{environment['FORETELL_APP_PORT']}"
        said = [
            foretell("predict", model, *fields, "--json", "--url", url)
            for model, fields in (("flight-delay", _FLIGHT), ("sentiment", ("text=What a lovely day",)))
        ]
        assert [json.loads(each)["status"] for each in said] == ["succeeded"] * 2
        page = httpx.get(url, follow_redirects=True)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        (script,) = [part.split('"')[0] for part in page.text.split('src="')[1:]][:1]
        assert httpx.get(url + script).headers["content-type"].startswith("text/javascript")
        # It stands where it was installed, and nowhere else.
        assert (tmp_path / "home" / "data" / "foretell.db").is_file()
        foretell("audit")
    finally:
        foretell("down")
