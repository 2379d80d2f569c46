"""Finding packages: several versions side by side, and a broken one harms no other."""

from pathlib import Path

import pytest

from foretell.inference.registry import ModelNotFound, Registry, VersionNotFound, shipped_folder

from .conftest import MakePackage


def test_versions_stand_side_by_side(make_package: MakePackage) -> None:
    make_package("doubler/1.9.0", version="1.9.0")
    make_package("doubler/1.10.0", version="1.10.0")
    make_package("doubler/2.0.0-rc1", version="2.0.0-rc1")
    folder = make_package("other", name="other")
    registry = Registry.discover(folder.parent)
    assert registry.unavailable == ()
    assert registry.names == ["doubler", "other"]
    assert registry.versions("doubler") == ["1.9.0", "1.10.0", "2.0.0-rc1"]
    assert registry.get("doubler").version == "1.10.0"
    assert registry.get("doubler", "2.0.0-rc1").version == "2.0.0-rc1"
    assert [package.version for package in registry] == ["1.9.0", "1.10.0", "2.0.0-rc1", "1.0.0"]
    assert len(registry) == 4


def test_the_default_can_be_said(make_package: MakePackage) -> None:
    make_package("a", version="1.0.0")
    folder = make_package("b", version="2.0.0").parent
    assert Registry.discover(folder, defaults={"doubler": "1.0.0"}).get("doubler").version == "1.0.0"
    wrong = Registry.discover(folder, defaults={"doubler": "3.0.0", "absent": "1.0.0"})
    assert wrong.get("doubler").version == "2.0.0"
    assert [problem.name for problem in wrong.unavailable] == ["doubler", "absent"]


def test_a_lone_pre_release_is_the_default(make_package: MakePackage) -> None:
    assert Registry.discover(make_package(version="0.1.0-beta").parent).get("doubler").version == "0.1.0-beta"


def test_broken_packages_are_listed_and_the_rest_is_served(make_package: MakePackage) -> None:
    sound = make_package("sound")
    (make_package("broken", name="broken") / "model.toml").write_text("name = ")
    (make_package("empty-handed", name="third") / "model.toml").unlink()
    (sound.parent / "__pycache__").mkdir()
    (sound.parent / "just-empty").mkdir()
    (sound.parent / "README.md").write_text("a file")
    registry = Registry.discover(sound.parent, sound.parent / "absent")
    assert registry.names == ["doubler"]
    assert [Path(problem.name).name for problem in registry.unavailable] == ["broken", "empty-handed", "absent"]
    assert all(problem.reason for problem in registry.unavailable)


def test_of_twins_the_first_counts(make_package: MakePackage) -> None:
    first = make_package("a")
    make_package("b")
    registry = Registry.discover(first.parent)
    assert registry.get("doubler").path == first
    (problem,) = registry.unavailable
    assert problem.name.endswith("b")
    assert "already there" in problem.reason


def test_what_is_absent_is_said_so() -> None:
    registry = Registry.discover(shipped_folder())
    with pytest.raises(VersionNotFound, match=r"no version 9\.9\.9 of the model flight-delay"):
        registry.get("flight-delay", "9.9.9")
    for ask in (registry.get, registry.versions):
        with pytest.raises(ModelNotFound, match="no model absent"):
            ask("absent")
