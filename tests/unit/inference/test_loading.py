"""Models load beside one another: a slow one holds up nobody, and one that can't be loaded says why."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.model_packages import Doubler, live_registry, write_package

from foretell.inference.engine import Engine
from foretell.inference.live import LiveRegistry
from foretell.inference.loading import Loading, State
from foretell.inference.package import ModelPackage, PackageBroken
from foretell.inference.runtimes import Runtime


class Loads:
    """Loads a `Doubler`; those that are named in `slow` not before `gate` is set, and others raise what is said."""

    def __init__(self) -> None:
        self.slow: set[str] = set()
        self.errors: dict[str, BaseException] = {}
        self.gate = threading.Event()
        self.begun: list[str] = []

    def __call__(self, package: ModelPackage) -> Runtime:
        self.begun.append(package.name)
        if package.name in self.slow:
            self.gate.wait()
        if package.name in self.errors:
            raise self.errors[package.name]
        return Doubler()


@pytest.fixture
def loads() -> Iterator[Loads]:
    loads = Loads()
    yield loads
    # Threads that hang would keep the tests from ending.
    loads.gate.set()


class Bench:
    """Packages with these names, and what loads them."""

    def __init__(self, folder: Path, loads: Loads, *names: str, **options: Any) -> None:
        self.folder = folder
        for name in names:
            write_package(folder / "models", name=name)
        self.registry: LiveRegistry = live_registry(folder)
        self.engine = Engine(self.registry, load=loads)
        self.changes = 0
        self.loading = Loading(self.engine, self.registry, changed=self._changed, **{"slow_after_s": 0.01, **options})

    def _changed(self) -> None:
        self.changes += 1

    def states(self) -> dict[str, State]:
        return {package.name: self.loading.state(package.name, package.version) for package in self.registry}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _following(bench: Bench) -> Any:
    following = asyncio.create_task(bench.loading.follow())
    await asyncio.sleep(0)
    yield following
    await following


async def test_fast_models_are_ready_while_a_slow_one_loads(tmp_path: Path, loads: Loads) -> None:
    loads.slow = {"b"}
    bench = Bench(tmp_path, loads, "a", "b", "c", "d")
    assert bench.loading.details()["models"] == []
    async with _following(bench) as following:
        await _until(lambda: len(bench.loading.ready) == 3)
        assert bench.states() == {"a": State.READY, "b": State.LOADING, "c": State.READY, "d": State.READY}
        assert bench.loading.under_way
        details = bench.loading.details()
        assert details["models"] == ["a 1.0.0", "c 1.0.0", "d 1.0.0"]
        assert list(details["loading"]) == ["b 1.0.0"]
        assert details["unavailable"] == {}
        assert not following.done()
        loads.gate.set()
    assert set(bench.states().values()) == {State.READY}
    assert bench.loading.details()["loading"] == {}
    assert not bench.loading.under_way
    # One change when each begins, and one when it is over.
    assert bench.changes == 8
    assert loads.begun == ["a", "b", "c", "d"]


async def test_no_more_than_so_many_load_at_once(tmp_path: Path, loads: Loads) -> None:
    loads.slow = {"a", "b", "c"}
    bench = Bench(tmp_path, loads, "a", "b", "c", at_once=2)
    async with _following(bench):
        await _until(lambda: loads.begun == ["a", "b"])
        # Nobody begins it out of turn, either.
        assert bench.states() == dict.fromkeys("abc", State.LOADING)
        assert bench.loading.details()["loading"]["c 1.0.0"] == 0.0
        assert loads.begun == ["a", "b"]
        loads.gate.set()
    assert loads.begun == ["a", "b", "c"]


async def test_one_that_cannot_be_loaded_says_why_and_is_not_tried_with_every_task(
    tmp_path: Path, loads: Loads
) -> None:
    loads.errors = {"a": PackageBroken("It is bent", "some/place", "Straighten it."), "b": SystemExit(1)}
    bench = Bench(tmp_path, loads, "a", "b", "c")
    await bench.loading.follow()
    for _ in range(3):
        assert bench.states() == {"a": State.FAILED, "b": State.FAILED, "c": State.READY}
    assert loads.begun == ["a", "b", "c"]
    # Everybody may hear what is wrong, but not where our files are.
    assert bench.loading.reason("a", "1.0.0") == "It is bent."
    assert bench.loading.reason("b", "1.0.0") == "Its loading failed: SystemExit."
    assert bench.loading.reason("c", "1.0.0") == ""
    assert bench.loading.details()["unavailable"] == {
        "a 1.0.0": "It is bent (some/place). Straighten it.",
        "b 1.0.0": "Its loading failed: SystemExit.",
    }
    # What was missing may have come.
    loads.errors = {}
    await bench.loading.follow()
    assert set(bench.states().values()) == {State.READY}


async def test_a_version_that_came_a_moment_ago_begins_to_load_when_it_is_asked_for(
    tmp_path: Path, loads: Loads
) -> None:
    bench = Bench(tmp_path, loads, "a")
    await bench.loading.follow()
    write_package(tmp_path / "models", name="new")
    bench.registry.refresh()
    loads.slow = {"new"}
    assert bench.loading.state("new", "1.0.0") is State.LOADING
    assert bench.loading.state("new", "1.0.0") is State.LOADING
    # The change is noticed as well: it is loaded once.
    async with _following(bench):
        loads.gate.set()
    assert bench.loading.state("new", "1.0.0") is State.READY
    assert loads.begun == ["a", "new"]


async def test_a_change_is_followed_while_a_slow_model_still_loads(tmp_path: Path, loads: Loads) -> None:
    loads.slow = {"a"}
    bench = Bench(tmp_path, loads, "a", "b")
    async with _following(bench):
        await _until(lambda: len(bench.loading.ready) == 1)
        write_package(tmp_path / "models", name="c")
        shutil.rmtree(tmp_path / "models" / "b-1.0.0")
        bench.registry.refresh()
        async with _following(bench):
            await _until(lambda: [package.name for package in bench.loading.ready] == ["c"])
            # What went is still answered for a while.
            assert bench.loading.state("b", "1.0.0") is State.READY
            loads.gate.set()
    assert loads.begun == ["a", "b", "c"]


async def test_what_is_not_installed_is_the_engines_business(tmp_path: Path, loads: Loads) -> None:
    bench = Bench(tmp_path, loads, "a")
    assert bench.loading.state("unknown", "1.0.0") is State.READY


async def test_a_call_of_a_loaded_model_does_not_wait_for_a_load(tmp_path: Path, loads: Loads) -> None:
    loads.slow = {"b"}
    bench = Bench(tmp_path, loads, "a", "b")
    async with _following(bench):
        await _until(lambda: len(bench.loading.ready) == 1)
        await _until(lambda: loads.begun == ["a", "b"])
        package = bench.registry.get("a")
        # In this thread: were there one lock for all, this would never return.
        assert bench.engine.predict(package, [{"x": 2}], "features") == [{"y": 4}]
        bench.engine.keep_only(bench.registry.kept)
        loads.gate.set()


async def test_a_version_whose_files_changed_is_served_as_it_was_until_it_is_loaded(
    tmp_path: Path, loads: Loads
) -> None:
    bench = Bench(tmp_path, loads, "a")
    await bench.loading.follow()
    before = bench.registry.get("a")
    place = tmp_path / "models" / "a-1.0.0"

    def change(text: str) -> None:
        (place / "notes.txt").write_text(text)
        bench.registry.refresh()
        assert bench.registry.get("a") is not before

    def served() -> ModelPackage:
        return bench.registry.resolve("a", "1.0.0")

    loads.errors = {"a": PackageBroken("It is bent", "some/place", "Straighten it.")}
    change("wrong")
    # Before the change is noticed here, and after.
    assert (bench.loading.state("a", "1.0.0"), served()) == (State.READY, before)
    await bench.loading.follow()
    assert (bench.loading.state("a", "1.0.0"), served()) == (State.READY, before)
    assert bench.engine.is_loaded("a", "1.0.0")
    details = bench.loading.details()
    assert details["models"] == ["a 1.0.0"]
    assert "It is bent (some/place). Straighten it. Until that is mended" in details["unavailable"]["a 1.0.0"]
    loads.errors, loads.slow = {}, {"a"}
    change("right again")
    async with _following(bench):
        await _until(lambda: bench.loading.under_way)
        assert (bench.loading.state("a", "1.0.0"), served()) == (State.READY, before)
        loads.gate.set()
    assert served() is bench.registry.get("a")
    assert bench.loading.state("a", "1.0.0") is State.READY
    assert bench.loading.details()["unavailable"] == {}
    assert all(package is not before for package in bench.registry.kept)
