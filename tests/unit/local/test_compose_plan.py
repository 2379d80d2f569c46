"""What a start in containers is told by docker-compose.yaml and its settings, wherever these stand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretell.local.compose_plan import Plan, unread_settings
from foretell.local.containers import Container

ROOT = Path(__file__).resolve().parents[3]
NGINX = Container("nginx", "foretell-nginx-1", "running", True, "", (80,), "0123456789ab", 1, 0, 0)


def proxy(*ports: tuple[int, str], domain: str = "") -> dict[str, Any]:
    """A reverse proxy, as `docker compose config` shows it."""
    published = [{"target": target, "published": port} for target, port in ports]
    return {"ports": published, "environment": {"FORETELL_DOMAIN": domain} if domain else None}


@pytest.mark.parametrize(
    ("services", "published", "url"),
    [
        ({"nginx": proxy((80, "80"), (443, "443"))}, (80, 443), "http://127.0.0.1"),
        ({"nginx": proxy((80, "18080"), (443, "8443"))}, (8443, 18080), "http://127.0.0.1:18080"),
        ({"nginx": proxy((80, "18080"))}, (), "http://127.0.0.1:18080"),
        ({"nginx": proxy((80, "8000-8010"))}, (8004,), "http://127.0.0.1:8004"),
        ({"caddy": proxy((80, "80"), (443, "443"), domain="example.org")}, (), "https://example.org"),
        (
            {
                "nginx": proxy((80, "80")) | {"deploy": {"replicas": 0}},
                "caddy": proxy((80, "80"), (443, "8443"), domain="example.org"),
            },
            (),
            "https://example.org:8443",
        ),
    ],
    ids=["usual", "other ports", "not running", "any of some ports", "Caddy", "Caddy, another port"],
)
def test_where_the_page_is(services: dict[str, Any], published: tuple[int, ...], url: str) -> None:
    assert Plan(services).url([replace(NGINX, published=published)] if published else []) == url


def test_what_is_for_trying_is_named_in_development_only() -> None:
    assert Plan({"app": {}}).development
    assert Plan({"app": {"environment": {"FORETELL_ENVIRONMENT": "development"}}}).development
    assert not Plan({"app": {"environment": {"FORETELL_ENVIRONMENT": "production"}}}).development


def test_a_bot_is_started_if_it_has_a_token() -> None:
    assert Plan({"bot": {"deploy": {"replicas": 1}}}).has_bot
    assert not Plan({"bot": {"deploy": {"replicas": 0}}}).has_bot
    assert not Plan({}).has_bot


def test_a_setting_that_nothing_reads_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    for file in ROOT.glob("docker-compose*.yaml"):
        shutil.copy(file, tmp_path)
    assert unread_settings(tmp_path) == {}
    (tmp_path / ".env").write_text(
        "# FORETELL_COMMENTED=1\nCOMPOSE_FILE=docker-compose.yaml\nFORETELL_HTTP_PORT=8080\n"
        "FORETELL_DOMAIN=example.org\nFORETELL_HTP_PORT=8080\nexport X=1\nFORETELL_ZEBRA = x\nTELEGRAM_TOKN=x\n"
    )
    assert unread_settings(tmp_path) == {
        "FORETELL_HTP_PORT": "FORETELL_HTTP_PORT",
        "FORETELL_ZEBRA": "",
        "TELEGRAM_TOKN": "TELEGRAM_TOKEN",
    }
