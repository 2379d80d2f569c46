"""What can be ordered: versions, default, canaries, and what follows when models come and go."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from foretell.inference.live import LiveRegistry
from foretell.services.app.offers import Offers

MANIFEST = """
name = "doubler"
version = "{version}"
title = {{ en = "Doubler", ru = "Удвоитель" }}
description = {{ en = "Doubles", ru = "Удваивает" }}
runtime = "remote"
price_credits = {price}
timeout_s = 5
max_batch = 8
"""
SCHEMA = '{"type": "object", "properties": {"x": {"type": "number"}}}'

Install = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "nothing").mkdir()
    return folder


@pytest.fixture
def install(folder: Path) -> Install:
    """Puts a version of the model into the folder."""

    def put(version: str, *, price: int = 1, schema: str = SCHEMA) -> None:
        place = folder / "doubler" / version
        place.mkdir(parents=True)
        (place / "model.toml").write_text(MANIFEST.format(version=version, price=price))
        (place / "features.schema.json").write_text(schema)
        (place / "output.schema.json").write_text(SCHEMA)

    return put


@pytest.fixture
def registry(folder: Path) -> LiveRegistry:
    return LiveRegistry(folder, shipped=folder.parent / "nothing")


def offered(registry: LiveRegistry) -> Offers:
    registry.refresh()
    return Offers(registry, lambda package: package.price_credits)


def drawn(offers: Offers, times: int = 2000) -> Counter[str]:
    found = [offers.get("doubler", None) for _ in range(times)]
    return Counter(offer.package.version for offer in found if offer is not None)


def test_without_rules_the_default_is_meant(registry: LiveRegistry, install: Install) -> None:
    install("1.0.0")
    install("1.1.0", price=3)
    offers = offered(registry)
    assert drawn(offers, 20) == {"1.1.0": 20}
    first = offers.get("doubler", "1.0.0")
    assert first is not None
    assert (first.package.version, first.price_credits) == ("1.0.0", 1)
    assert offers.get("doubler", "2.0.0") is None
    assert offers.get("tripler", None) is None


def test_weights_divide_what_names_no_version_at_the_price_of_the_default(
    registry: LiveRegistry, folder: Path, install: Install
) -> None:
    install("1.0.0", price=1)
    install("1.1.0", price=5)
    (folder / "traffic.toml").write_text('[doubler]\ndefault = "1.0.0"\nweights = { "1.0.0" = 75, "1.1.0" = 25 }\n')
    offers = offered(registry)
    counts = drawn(offers)
    # 500 are expected, with a standard deviation of 19: this fails once in a universe.
    assert 300 < counts["1.1.0"] < 700
    assert counts.total() == 2000
    assert {offer.price_credits for _ in range(100) if (offer := offers.get("doubler", None))} == {1}
    named = offers.get("doubler", "1.1.0")
    assert named is not None
    assert named.price_credits == 5


def test_a_canary_that_takes_another_input_or_is_not_there_gets_nothing(folder: Path, install: Install) -> None:
    install("1.0.0")
    install("1.1.0", schema='{"type": "object", "properties": {"y": {"type": "number"}}}')
    for weights in ('{ "1.0.0" = 1, "1.1.0" = 99, "3.0.0" = 99 }', '{ "1.1.0" = 1 }'):
        (folder / "traffic.toml").write_text(f'[doubler]\ndefault = "1.0.0"\nweights = {weights}\n')
        offers = offered(LiveRegistry(folder, shipped=folder.parent / "nothing"))
        assert drawn(offers, 200) == {"1.0.0": 200}


def test_offers_follow_the_registry(registry: LiveRegistry, install: Install) -> None:
    install("1.0.0")
    offers = offered(registry)
    before = offers.get("doubler", None)
    install("2.0.0")
    assert offers.get("doubler", None) is before
    registry.refresh()
    assert drawn(offers, 5) == {"2.0.0": 5}
    assert offers.get("doubler", "1.0.0") is not None
