"""A registry that follows its folder: what changes, what stays the same object, what is found a while longer."""

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from foretell.contracts.messages import Failure, Task, TaskEnvelope
from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry, operators_folder, touch_stamp
from foretell.inference.package import ModelPackage
from foretell.inference.registry import ModelNotFound, UnavailablePackage, VersionNotFound
from foretell.kit.clock import now, uuid7

from .conftest import MakePackage


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """Stands in for the packages that ship."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    return folder


@pytest.fixture
def live(make_package: MakePackage, nothing: Path) -> LiveRegistry:
    """A registry with one package, doubler 1.0.0."""
    return LiveRegistry(make_package("first").parent, shipped=nothing)


def test_nothing_is_read_until_the_stamp_is_touched(live: LiveRegistry, make_package: MakePackage) -> None:
    make_package("second", version="2.0.0")
    assert not live.refresh_if_told()
    assert live.versions("doubler") == ["1.0.0"]
    touch_stamp(live.folder)
    assert live.refresh_if_told()
    assert live.get("doubler").version == "2.0.0"
    assert not live.refresh_if_told()


def test_a_package_whose_files_are_the_same_stays_the_same_object(
    live: LiveRegistry, make_package: MakePackage
) -> None:
    first = live.get("doubler", "1.0.0")
    make_package("second", version="2.0.0")
    live.refresh()
    assert live.get("doubler", "1.0.0") is first
    manifest = first.path / "model.toml"
    manifest.write_text(manifest.read_text().replace("price_credits = 1", "price_credits = 7"))
    live.refresh()
    changed = live.get("doubler", "1.0.0")
    assert (first.price_credits, changed.price_credits) == (1, 7)


def test_code_that_python_compiled_meanwhile_is_no_change(live: LiveRegistry) -> None:
    first = live.get("doubler")
    (first.path / "__pycache__").mkdir()
    (first.path / "__pycache__" / "preprocessing.pyc").write_bytes(b"compiled")
    live.refresh()
    assert live.get("doubler") is first


def test_a_version_that_went_is_not_offered_and_still_found_for_tasks(
    live: LiveRegistry, make_package: MakePackage
) -> None:
    make_package("second", version="2.0.0")
    live.refresh()
    gone = live.get("doubler", "1.0.0")
    shutil.rmtree(gone.path)
    live.refresh()
    assert live.versions("doubler") == ["2.0.0"]
    with pytest.raises(VersionNotFound):
        live.get("doubler", "1.0.0")
    assert live.resolve("doubler", "1.0.0") is gone
    assert gone in live.kept
    with pytest.raises(ModelNotFound):
        live.resolve("tripler", "1.0.0")


def test_a_task_for_a_version_that_came_this_moment_finds_it(live: LiveRegistry, make_package: MakePackage) -> None:
    make_package("second", version="2.0.0")
    with pytest.raises(VersionNotFound):
        live.resolve("doubler", "2.0.0")
    touch_stamp(live.folder)
    assert live.resolve("doubler", "2.0.0").version == "2.0.0"


def test_the_default_folder_may_be_missing_and_may_come_later(tmp_path: Path, make_package: MakePackage) -> None:
    folder = operators_folder(None, tmp_path / "data")
    live = LiveRegistry.installed(None, tmp_path / "data")
    assert live.unavailable == ()
    assert "flight-delay" in live.names
    folder.parent.mkdir()
    make_package("first").parent.rename(folder)
    touch_stamp(folder)
    assert live.refresh_if_told()
    assert "doubler" in live.names


def test_a_folder_that_the_operator_named_and_that_is_not_there_is_remarked_upon(tmp_path: Path) -> None:
    live = LiveRegistry.installed(tmp_path / "typo", tmp_path)
    assert [problem.name for problem in live.unavailable] == [str(tmp_path / "typo")]


def test_rules_choose_the_default_and_broken_rules_change_nothing(
    live: LiveRegistry, make_package: MakePackage
) -> None:
    make_package("second", version="2.0.0")
    rules = live.folder / "traffic.toml"
    rules.write_text('[doubler]\ndefault = "1.0.0"\nweights = { "1.0.0" = 3, "2.0.0" = 1 }\n')
    live.refresh()
    assert live.get("doubler").version == "1.0.0"
    assert live.traffic["doubler"].weights == {"1.0.0": 3, "2.0.0": 1}
    for broken in ("[doubler", '[doubler]\nweight = { "1.0.0" = 1 }', '[doubler]\nweights = { "1.0.0" = 0 }'):
        rules.write_text(broken)
        live.refresh()
        assert [problem.name for problem in live.unavailable] == ["traffic.toml"]
        assert live.get("doubler").version == "1.0.0"
    rules.unlink()
    live.refresh()
    assert (live.traffic, live.unavailable, live.get("doubler").version) == ({}, (), "2.0.0")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('default = "9.9.9"', "default: There is no version 9.9.9 of the model doubler."),
        ('weights = { "9.9.9" = 1 }', "weights: There is no version 9.9.9 of the model doubler."),
        ('shadow = ["9.9.9"]', "shadow: There is no version 9.9.9 of the model doubler."),
        ('weights = { "3.0.0" = 1 }', "weights: doubler 3.0.0 takes another input than 2.0.0."),
    ],
)
def test_a_rule_that_does_not_fit_the_packages_leaves_the_one_before_in_force(
    live: LiveRegistry, make_package: MakePackage, rule: str, said: str
) -> None:
    make_package("second", version="2.0.0")
    make_package("third", version="3.0.0-rc.1")
    other = make_package("other", version="3.0.0")
    (other / "features.schema.json").write_text('{"type": "object"}')
    rules = live.folder / "traffic.toml"
    good = '[doubler]\ndefault = "1.0.0"\nshadow = ["2.0.0"]\nprice_credits = 7\n'
    rules.write_text(good)
    live.refresh()
    held = live.traffic
    default = "" if rule.startswith("default") else 'default = "2.0.0"\n'
    rules.write_text(f"[doubler]\n{default}{rule}\nprice_credits = 9\n")
    live.refresh()
    ((name, reason),) = [(each.name, each.reason) for each in live.unavailable]
    assert name == "traffic.toml [doubler]"
    assert reason.startswith(said)
    assert live.traffic == held
    assert live.get("doubler").version == "1.0.0"
    # A process that starts now knows no rule from before: it follows what of this one can be followed.
    fresh = LiveRegistry(live.folder, shipped=live.folder.parent / "shipped")
    assert fresh.traffic["doubler"].price_credits == 9
    assert "9.9.9" not in (*fresh.traffic["doubler"].weights, *fresh.traffic["doubler"].shadow)
    rules.write_text(good)
    live.refresh()
    assert live.unavailable == ()


def test_rules_for_a_model_that_is_not_installed_are_remarked_upon(live: LiveRegistry) -> None:
    (live.folder / "traffic.toml").write_text('[tripler]\ndefault = "1.0.0"\n')
    live.refresh()
    assert [(each.name, each.reason.split(".")[0]) for each in live.unavailable] == [
        ("traffic.toml [tripler]", "There is no model tripler")
    ]
    assert live.get("doubler").version == "1.0.0"


def test_a_version_that_is_removed_is_in_no_rule_any_more(live: LiveRegistry, make_package: MakePackage) -> None:
    second = make_package("second", version="2.0.0")
    (live.folder / "traffic.toml").write_text('[doubler]\ndefault = "1.0.0"\nshadow = ["2.0.0"]\nprice_credits = 7\n')
    live.refresh()
    shutil.rmtree(second)
    live.refresh()
    assert live.traffic["doubler"].shadow == []
    assert (live.traffic["doubler"].default, live.traffic["doubler"].price_credits) == ("1.0.0", 7)


@pytest.mark.parametrize("broken", ["", "name = 3", "version ="])
def test_a_package_that_a_change_broke_is_served_as_it_was(live: LiveRegistry, broken: str) -> None:
    first = live.get("doubler")
    manifest = first.path / "model.toml"
    good = manifest.read_text()
    manifest.write_text(broken)
    for _ in range(2):
        live.refresh()
        assert live.get("doubler") is first
        ((name, reason),) = [(each.name, each.reason) for each in live.unavailable]
        assert name == str(first.path)
        assert "served as it was before" in reason
    manifest.write_text(good.replace("price_credits = 1", "price_credits = 7"))
    live.refresh()
    assert live.get("doubler").price_credits == 7
    assert live.unavailable == ()


async def test_the_watch_outlives_what_goes_wrong(live: LiveRegistry, make_package: MakePackage) -> None:
    seen: list[list[str]] = []
    noticed = asyncio.Event()

    async def on_change() -> None:
        seen.append(live.versions("doubler"))
        noticed.set()
        raise RuntimeError("somebody's mistake")

    with capture_logs():
        watching = asyncio.create_task(live.watch(on_change))
        for version in ("2.0.0", "3.0.0"):
            make_package(version, version=version)
            touch_stamp(live.folder)
            async with asyncio.timeout(60):
                await noticed.wait()
            noticed.clear()
        watching.cancel()
    assert seen == [["1.0.0", "2.0.0"], ["1.0.0", "2.0.0", "3.0.0"]]


async def test_the_watch_goes_on_while_what_came_is_loaded(live: LiveRegistry, make_package: MakePackage) -> None:
    loads: list[asyncio.Future[None]] = []
    before = live.followed

    async def on_change() -> asyncio.Task[None]:
        load = asyncio.get_running_loop().create_future()
        loads.append(load)
        return asyncio.ensure_future(asyncio.wait_for(load, None))

    watching = asyncio.create_task(live.watch(on_change))
    stamps = []
    async with asyncio.timeout(60):
        for version in ("2.0.0", "3.0.0"):
            make_package(version, version=version)
            stamps.append(touch_stamp(live.folder))
            while len(loads) < len(stamps):
                await asyncio.sleep(0.05)
        # Whatever the order in which they end: the first change is followed no sooner than the second.
        loads[0].set_result(None)
        await asyncio.sleep(0)
        assert live.followed == before
        loads[1].set_result(None)
        while live.followed == before:
            await asyncio.sleep(0.01)
    assert live.followed == stamps[1]
    watching.cancel()


class _Model:
    """Answers with the number in its package's artifact."""

    def __init__(self, package: ModelPackage) -> None:
        self.y = int(package.artifact_path.read_text())

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"y": self.y} for _ in rows]


def test_a_call_under_way_is_answered_by_the_package_it_began_with(make_package: MakePackage, nothing: Path) -> None:
    live = LiveRegistry(make_package("first", artifact=b"1").parent, shipped=nothing)
    loads: list[str] = []
    meanwhile: list[Callable[[], None]] = []

    class Slow(_Model):
        def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            while meanwhile:
                meanwhile.pop()()
            return super().predict(rows)

    def load(package: ModelPackage) -> _Model:
        loads.append(package.version)
        return Slow(package)

    engine = Engine(live, load=load)

    def replace_it() -> None:
        (live.folder / "first" / "model.onnx").write_bytes(b"22")
        live.refresh()
        for package in live:
            engine.warm_package(package)
        engine.keep_only(live.kept)

    def asked(version: str = "1.0.0") -> Any:
        from msgspec import Raw

        task = Task(uuid7(), "features", Raw(b'{"x": 1}'))
        (result,) = engine.run(TaskEnvelope("doubler", version, now(), [task]))
        return json.loads(bytes(result.output)) if result.output else result.error  # type: ignore[arg-type]

    meanwhile.append(replace_it)
    assert asked() == {"y": 1}
    assert asked() == {"y": 22}
    assert loads == ["1.0.0", "1.0.0"]
    shutil.rmtree(live.folder / "first")
    touch_stamp(live.folder)
    live.refresh_if_told()
    engine.keep_only(live.kept)
    assert asked() == {"y": 22}
    assert isinstance(asked("9.0.0"), Failure)
    assert len(loads) == 2


class Slow(LiveRegistry):
    """Waits, while it reads a package, until it may go on."""

    gate = threading.Event()
    reading = threading.Event()

    def _read(self, problems: list[UnavailablePackage], place: Path) -> ModelPackage:
        self.reading.set()
        assert self.gate.wait(60)
        return super()._read(problems, place)


def test_a_version_that_another_thread_is_reading_is_waited_for(
    tmp_path: Path, nothing: Path, make_package: MakePackage
) -> None:
    folder = tmp_path / "models"
    make_package("one")
    Slow.gate.set()
    registry = Slow(folder, shipped=nothing)
    make_package("two", version="2.0.0")
    touch_stamp(folder)
    Slow.gate.clear()
    Slow.reading.clear()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(registry.refresh_if_told)
        assert Slow.reading.wait(60)
        second = threads.submit(registry.resolve, "doubler", "2.0.0")
        # Time enough to give up, for one that does not wait.
        wait([second], timeout=0.3)
        Slow.gate.set()
        assert second.result(60).version == "2.0.0"
        assert first.result(60)
