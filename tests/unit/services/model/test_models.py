"""Which models are served: loaded, unloaded, replaced, and listed with a reason when they can't be."""

import asyncio
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.model_packages import Doubler, live_registry, write_package

from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.registry import ModelNotFound
from foretell.inference.runtimes import Runtime
from foretell.services.model.models import ModelLoading, ModelNotLoaded, ModelNotReady, Models


class Loader:
    """Loads a `Doubler` for every package, unless it is told to fail."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.loaded: list[str] = []
        #: Versions that are loaded once `gate` is set.
        self.slow: set[str] = set()
        self.gate = threading.Event()

    def __call__(self, package: ModelPackage) -> Runtime:
        if package.version in self.slow:
            self.gate.wait()
        if self.error:
            raise self.error
        self.loaded.append(package.version)
        return Doubler()


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    # Threads that hang would keep the tests from ending.
    loader.gate.set()


@pytest.fixture
def models(tmp_path: Path, loader: Loader) -> Models:
    write_package(tmp_path / "models")
    return Models(live_registry(tmp_path), load=loader, slow_after_s=0.01)


async def test_a_new_version_that_loads_for_long_stops_nobody(models: Models, loader: Loader, tmp_path: Path) -> None:
    await models.follow()
    served = models.get("doubler")
    loader.slow = {"2.0.0"}
    write_package(tmp_path / "models", version="2.0.0")
    models.registry.refresh()
    following = asyncio.create_task(models.follow())
    while not models.loading:
        await asyncio.sleep(0.01)
    # It is the default version now, but the last one answers until it is loaded.
    assert models.registry.default_versions["doubler"] == "2.0.0"
    assert models.get("doubler") is served
    with pytest.raises(ModelLoading, match=r"2\.0\.0 is not ready\. It is being loaded"):
        models.get("doubler", "2.0.0")
    # Others come and go meanwhile.
    write_package(tmp_path / "models", name="other")
    await models.load("other")
    assert models.get("other").package.name == "other"
    await models.unload("other")
    assert list(models.loading) == ["doubler 2.0.0"]
    loader.gate.set()
    await following
    assert models.get("doubler").package.version == "2.0.0"
    assert models.loading == {}


async def test_what_is_unloaded_before_its_turn_is_not_loaded(models: Models, loader: Loader, tmp_path: Path) -> None:
    loader.slow = {"1.0.0"}
    write_package(tmp_path / "models", name="zebra", version="3.0.0")
    models.registry.refresh()
    following = asyncio.create_task(models.follow())
    while not models.loading.get("doubler 1.0.0", 0.0):
        await asyncio.sleep(0.01)
    await models.unload("zebra")
    loader.gate.set()
    await following
    assert models.loading == {}
    with pytest.raises(ModelNotReady, match="It was unloaded"):
        models.get("zebra")


async def test_what_was_unloaded_while_it_was_loaded_is_not_served(models: Models, loader: Loader) -> None:
    loader.slow = {"1.0.0"}
    following = asyncio.create_task(models.follow())
    while not models.loading:
        await asyncio.sleep(0.01)
    await models.unload("doubler")
    loader.gate.set()
    await following
    with pytest.raises(ModelNotReady, match="It was unloaded"):
        models.get("doubler")


async def test_a_package_that_changes_while_it_is_loaded_is_loaded_anew(
    models: Models, loader: Loader, tmp_path: Path
) -> None:
    loader.slow = {"1.0.0"}
    first = asyncio.create_task(models.follow())
    while not models.loading:
        await asyncio.sleep(0.01)
    write_package(tmp_path / "models", max_batch=4)
    models.registry.refresh()
    second = asyncio.create_task(models.follow())
    await asyncio.sleep(0)
    loader.gate.set()
    await asyncio.gather(first, second)
    assert models.get("doubler").package.max_batch == 4


async def test_a_model_is_loading_until_it_is_loaded(models: Models) -> None:
    assert models.status("doubler").state == "LOADING"
    with pytest.raises(ModelNotReady, match=r"doubler 1\.0\.0 is not ready\. It is being loaded"):
        models.get("doubler")
    await models.follow()
    assert models.all_tried
    assert models.status("doubler").state == "READY"
    assert models.get("doubler") is models.get("doubler", "1.0.0")


async def test_what_is_not_there_is_not_found(models: Models) -> None:
    await models.follow()
    for name, version in (("trebler", None), ("doubler", "2.0.0")):
        with pytest.raises(ModelNotFound):
            models.get(name, version)
        with pytest.raises(ModelNotFound):
            models.status(name, version)
    with pytest.raises(ModelNotFound):
        await models.load("trebler")
    with pytest.raises(ModelNotFound):
        await models.unload("trebler")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(PackageBroken("It is bent", "here", "Straighten it."), "It is bent"), (MemoryError(), "MemoryError")],
)
async def test_a_model_that_cannot_be_loaded_says_why(
    models: Models, loader: Loader, error: Exception, reason: str
) -> None:
    loader.error = error
    await models.follow()
    status = models.status("doubler")
    assert status.state == "UNAVAILABLE"
    assert reason in status.reason
    with pytest.raises(ModelNotReady, match=reason):
        models.get("doubler")
    loader.error = None
    await models.load("doubler")
    assert models.status("doubler").state == "READY"


async def test_an_unloaded_model_is_ready_again_once_it_is_loaded(models: Models) -> None:
    await models.follow()
    before = models.get("doubler")
    await models.unload("doubler")
    assert models.status("doubler").state == "UNAVAILABLE"
    with pytest.raises(ModelNotReady, match="It was unloaded"):
        models.get("doubler", "1.0.0")
    # Whoever had it may finish.
    assert await before.predict_one({"x": 2}, "features") == {"y": 4}
    await models.load("doubler")
    assert models.get("doubler") is not before


async def test_a_new_version_on_the_disk_is_served_after_a_load(models: Models, loader: Loader, tmp_path: Path) -> None:
    await models.follow()
    write_package(tmp_path / "models", version="1.1.0")
    with pytest.raises(ModelNotFound):
        models.get("doubler", "1.1.0")
    await models.load("doubler")
    assert models.get("doubler").package.version == "1.1.0"
    assert models.get("doubler", "1.0.0").package.version == "1.0.0"
    assert loader.loaded == ["1.0.0", "1.1.0"]


async def test_a_version_that_is_gone_from_the_disk_is_gone_after_a_load(models: Models, tmp_path: Path) -> None:
    newer = write_package(tmp_path / "models", version="1.1.0")
    await models.load("doubler")
    for file in newer.iterdir():
        file.unlink()
    newer.rmdir()
    await models.load("doubler")
    assert models.get("doubler").package.version == "1.0.0"
    with pytest.raises(ModelNotFound):
        models.get("doubler", "1.1.0")


async def test_what_is_served_goes_on_when_its_replacement_cannot_be_loaded(
    models: Models, loader: Loader, tmp_path: Path
) -> None:
    await models.follow()
    served = models.get("doubler")
    loader.error = PackageBroken("It is bent", "here", "Straighten it.")
    write_package(tmp_path / "models", max_batch=4)
    with pytest.raises(ModelNotLoaded, match="It is bent"):
        await models.load("doubler")
    assert models.get("doubler") is served
    assert models.status("doubler").state == "READY"
    assert "It is bent" in models.unavailable["doubler 1.0.0"]


async def test_a_package_that_changed_is_replaced_and_others_are_not(models: Models, tmp_path: Path) -> None:
    write_package(tmp_path / "models", name="other")
    await models.load("other")
    await models.follow()
    before, other = models.get("doubler"), models.get("other")
    write_package(tmp_path / "models", max_batch=4)
    models.registry.refresh()
    await models.follow()
    assert models.get("doubler") is not before
    assert models.get("doubler").package.max_batch == 4
    assert models.get("other") is other


async def test_an_unloaded_model_stays_unloaded_when_others_change(models: Models, tmp_path: Path) -> None:
    await models.follow()
    await models.unload("doubler")
    write_package(tmp_path / "models", version="1.1.0")
    models.registry.refresh()
    await models.follow()
    with pytest.raises(ModelNotReady, match="It was unloaded"):
        models.get("doubler", "1.1.0")
    assert models.loading == {}
    assert set(models.unavailable) == {"doubler 1.0.0", "doubler 1.1.0"}
    await models.load("doubler")
    assert models.get("doubler").package.version == "1.1.0"
    assert models.unavailable == {}


async def test_requests_that_name_no_version_are_shared_by_weight(models: Models, tmp_path: Path) -> None:
    write_package(tmp_path / "models", version="1.1.0")
    traffic = tmp_path / "models" / "traffic.toml"
    traffic.write_text('[doubler]\ndefault = "1.0.0"\nweights = { "1.0.0" = 1, "1.1.0" = 1, "7.0.0" = 100 }')
    models.registry.refresh()
    await models.follow()
    assert {models.get("doubler").package.version for _ in range(200)} == {"1.0.0", "1.1.0"}
    assert {models.get("doubler", "1.0.0").package.version for _ in range(20)} == {"1.0.0"}
    traffic.write_text('[doubler]\ndefault = "1.0.0"')
    models.registry.refresh()
    await models.follow()
    assert {models.get("doubler").package.version for _ in range(20)} == {"1.0.0"}


async def test_a_model_that_seeds_the_generator_of_all_does_not_choose_the_versions(
    models: Models, tmp_path: Path
) -> None:
    write_package(tmp_path / "models", version="1.1.0")
    (tmp_path / "models" / "traffic.toml").write_text(
        '[doubler]\ndefault = "1.0.0"\nweights = { "1.0.0" = 1, "1.1.0" = 1 }'
    )
    models.registry.refresh()
    await models.follow()
    versions = set()
    for _ in range(200):
        # What many a model's `predict` begins with, in our process.
        random.seed(0)
        versions.add(models.get("doubler").package.version)
    assert versions == {"1.0.0", "1.1.0"}


async def test_a_canary_that_takes_something_else_gets_nothing(models: Models, tmp_path: Path) -> None:
    canary = write_package(tmp_path / "models", version="1.1.0")
    (canary / "features.schema.json").write_text('{"type": "object"}')
    (tmp_path / "models" / "traffic.toml").write_text(
        '[doubler]\ndefault = "1.0.0"\nweights = { "1.0.0" = 1, "1.1.0" = 1000 }'
    )
    models.registry.refresh()
    await models.follow()
    assert {models.get("doubler").package.version for _ in range(50)} == {"1.0.0"}
