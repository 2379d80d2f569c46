"""What was changed by hand in the folder of models is looked at before any service reads it."""

import os
import shutil
from pathlib import Path

import pytest

from foretell.inference.changes import problems_of_changes
from foretell.inference.live import touch_stamp
from foretell.inference.package import ModelPackage, PackageBroken

from .conftest import MakePackage


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """Stands in for the packages that ship."""
    (tmp_path / "shipped").mkdir()
    return tmp_path / "shipped"


def all_read(folder: Path) -> None:
    """The services are told to read the folder, a tick of the file system's clock after its last change."""
    last = max(path.lstat().st_ctime_ns for path in folder.rglob("*"))
    touch_stamp(folder)
    while (folder / ".reload").stat().st_ctime_ns <= last:
        touch_stamp(folder)


class Loads:
    """Notes which packages are loaded; `broken` can't be."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.broken: dict[str, Exception] = {}

    def __call__(self, package: ModelPackage) -> None:
        self.loaded.append(package.version)
        if package.version in self.broken:
            raise self.broken[package.version]


def test_only_what_changed_since_the_services_read_is_loaded(make_package: MakePackage, nothing: Path) -> None:
    folder = make_package("first").parent
    loads = Loads()
    assert problems_of_changes(folder, load=loads, shipped=nothing) == []
    assert loads.loaded == ["1.0.0"]
    all_read(folder)
    second = make_package("second", version="2.0.0")
    # A copy that keeps the times of its files is a change, too.
    os.utime(second / "model.onnx", (0, 0))
    loads.loaded.clear()
    assert problems_of_changes(folder, load=loads, shipped=nothing) == []
    assert loads.loaded == ["2.0.0"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PackageBroken("It is bent", "some/place", "Straighten it."), "It is bent (some/place). Straighten it."),
        (RuntimeError("no"), "its loading failed: RuntimeError: no."),
    ],
)
def test_a_model_that_cannot_be_loaded_is_a_problem(
    make_package: MakePackage, nothing: Path, error: Exception, said: str
) -> None:
    loads = Loads()
    loads.broken["1.0.0"] = error
    assert problems_of_changes(make_package().parent, load=loads, shipped=nothing) == [f"doubler 1.0.0: {said}"]


def test_what_was_broken_before_keeps_nobody_from_other_changes(make_package: MakePackage, nothing: Path) -> None:
    broken = make_package("broken", version="2.0.0")
    (broken / "model.toml").write_text("name = 3")
    folder = broken.parent
    (problem,) = problems_of_changes(folder, shipped=nothing)
    assert problem.startswith(f"{broken}: ")
    all_read(folder)
    make_package("first")
    assert problems_of_changes(folder, shipped=nothing) == []


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('[doubler]\ndefault = "9.9.9"', "[doubler]: default: There is no version 9.9.9"),
        ('[doubler]\nshadow = ["9.9.9"]', "[doubler]: shadow: There is no version 9.9.9"),
        ('[tripler]\ndefault = "1.0.0"', "[tripler]: There is no model tripler."),
        ("[doubler]\nprice_credits = 'many'", ": The rules do not fit"),
        ('[doubler]\nweights = "many"', ": The rules do not fit"),
        ("[doubler", ": The file is not TOML"),
    ],
)
def test_rules_are_compared_with_the_packages(make_package: MakePackage, nothing: Path, rules: str, said: str) -> None:
    folder = make_package().parent
    (folder / "traffic.toml").write_text(rules)
    (problem,) = problems_of_changes(folder, shipped=nothing)
    assert problem.startswith("traffic.toml")
    assert said in problem


def test_a_version_that_is_gone_from_under_a_rule_is_noticed(make_package: MakePackage, nothing: Path) -> None:
    folder = make_package("first").parent
    second = make_package("second", version="2.0.0")
    (folder / "traffic.toml").write_text('[doubler]\ndefault = "2.0.0"')
    all_read(folder)
    assert problems_of_changes(folder, shipped=nothing) == []
    shutil.rmtree(second)
    (problem,) = problems_of_changes(folder, shipped=nothing)
    assert "There is no version 2.0.0 of the model doubler" in problem
