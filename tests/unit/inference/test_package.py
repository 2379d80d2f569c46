"""Reading packages: what is broken is named, with its place and what to do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from foretell.inference.package import PackageBroken, RuntimeName, load_package, read_artifact, version_key
from foretell.inference.runtimes import LOADERS

from .conftest import MakePackage


def test_a_sound_package_is_read(make_package: MakePackage) -> None:
    package = load_package(make_package(more='queue = "gpu"\n[labels]\n0 = { en = "No", ru = "Нет" }'))
    assert (package.name, package.version, package.queue, package.timeout_s) == ("doubler", "1.0.0", "gpu", 5.0)
    assert package.labels["0"].ru == "Нет"
    assert package.input_schema is package.features_schema
    assert package.validator("input").is_valid({"x": 1})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "doubler"', 'name = "Doubler"', "name"),
        ('name = "doubler"', 'name = "../doubler"', "name"),
        ('version = "1.0.0"', 'version = "latest"', "version"),
        ('runtime = "onnx"', 'runtime = "pickle"', "runtime"),
        ("price_credits = 1", "price_credits = -1", "price_credits"),
        ("price_credits = 1", "price_credits = 1.5", "price_credits"),
        ("price_credits = 1", "colour = 1", "colour"),
        ("timeout_s = 5", "timeout_s = 0", "timeout_s"),
        ("max_batch = 8", "max_batch = 0", "max_batch"),
        (', ru = "Удвоитель"', "", "ru"),
        ('"model.onnx"', '"absent.onnx"', "absent.onnx"),
        ('"model.onnx"', '"../../../etc/passwd"', "outside the package"),
        ("price_credits = 1", "price_credits = ", "not TOML"),
    ],
)
def test_a_broken_manifest_says_which_field(make_package: MakePackage, old: str, new: str, said: str) -> None:
    manifest = make_package() / "model.toml"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(PackageBroken) as broken:
        load_package(manifest.parent)
    assert said in broken.value.message
    assert str(manifest.parent) in broken.value.message


@pytest.mark.parametrize("name", ["model.toml", "model.onnx", "features.schema.json", "output.schema.json"])
def test_an_absent_file_is_named(make_package: MakePackage, name: str) -> None:
    folder = make_package()
    (folder / name).unlink()
    with pytest.raises(PackageBroken, match=name):
        load_package(folder)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("[]", "JSON object"),
        ("{", "JSON object"),
        ('{"type": "strin"}', "JSON Schema"),
        ('{"type": "array"}', "object"),
    ],
)
def test_a_broken_schema_is_named(make_package: MakePackage, schema: str, said: str) -> None:
    folder = make_package()
    (folder / "features.schema.json").write_text(schema)
    with pytest.raises(PackageBroken, match=said) as broken:
        load_package(folder)
    assert "features.schema.json" in broken.value.message


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ('features = { x = "one" }\noutput = { y = 2.0 }', "x must be a number"),
        ("features = { x = 1 }\noutput = { z = 2.0 }", "y is missing"),
        ("output = { y = 2.0 }", "either"),
    ],
)
def test_an_example_must_fit(make_package: MakePackage, example: str, said: str) -> None:
    with pytest.raises(PackageBroken, match=said):
        load_package(make_package(more="[[examples]]\n" + example))


def test_input_schema_and_preprocessing_come_together(make_package: MakePackage) -> None:
    with pytest.raises(PackageBroken, match="no preprocessing"):
        load_package(make_package("one", input_schema={"type": "object"}))
    folder = make_package("two", preprocessing="")
    (folder / "input.schema.json").unlink()
    with pytest.raises(PackageBroken, match=r"input\.schema\.json"):
        load_package(folder)
    folder = make_package("three", preprocessing="")
    (folder / "preprocessing.py").unlink()
    with pytest.raises(PackageBroken, match=r"preprocessing\.py"):
        load_package(folder)


def test_a_tampered_artifact_is_not_handed_out(make_package: MakePackage) -> None:
    package = load_package(make_package())
    assert read_artifact(package) == b"not really a model"
    package.artifact_path.write_bytes(b"not really a model.")
    with pytest.raises(PackageBroken, match="sha256"):
        read_artifact(package)
    package.artifact_path.unlink()
    with pytest.raises(PackageBroken, match="cannot be read"):
        read_artifact(package)


def test_versions_sort_by_age() -> None:
    versions = ["1.10.0", "1.9.0", "1.10.0-rc2", "1.10.0-rc10", "1.10.0-rc.2", "1.10.0-rc.10", "0.9.9", "2.0.0"]
    ordered = sorted(versions, key=version_key)
    assert ordered[:2] == ["0.9.9", "1.9.0"]
    assert ordered[-2:] == ["1.10.0", "2.0.0"]
    assert ordered.index("1.10.0-rc.2") < ordered.index("1.10.0-rc.10")


def test_every_runtime_name_has_a_loader() -> None:
    assert set(get_args(RuntimeName)) == set(LOADERS)


def test_reading_packages_loads_no_numpy_and_runs_no_code_of_theirs(make_package: MakePackage) -> None:
    folder = make_package(preprocessing="raise SystemExit('this code must not run')")
    code = (
        "import json, sys; from pathlib import Path; from foretell.inference.registry import Registry, shipped_folder;"
        "found = Registry.discover(shipped_folder(), Path(sys.argv[1]));"
        "print(json.dumps([found.names, sorted(sys.modules)]))"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(folder.parent)], capture_output=True, check=True)
    names, modules = json.loads(answer.stdout)
    assert {"doubler", "flight-delay"} <= set(names)
    assert not {"numpy", "onnxruntime", "onnx", "pandas"} & set(modules)


def test_the_message_shows_braces_as_they_are() -> None:
    error: Any = PackageBroken("found {x}", Path("place"), "Do {this}.")
    assert error.message == "found {x} (place). Do {this}."
