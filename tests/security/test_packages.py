"""Packages and files from strangers: nothing outside is read, nothing small becomes huge, nobody else is disturbed."""

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from tests.model_packages import live_registry, write_package

from foretell.inference.guessing import CannotGuess
from foretell.inference.installing import install
from foretell.inference.package import PackageBroken, load_package
from foretell.inference.reference import ReferenceBroken, read_reference
from foretell.inference.registry import Registry
from foretell.inference.row_files import UnreadableRows, read_rows
from foretell.inference.runtimes import mlflow, skops
from foretell.inference.sampling import samples
from foretell.inference.small_files import MOST_BYTES
from foretell.inference.traffic import TrafficBroken, read_traffic


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "from-somebody")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is somebody else's, and that would do as any of a package."""
    file = tmp_path / "secret"
    file.write_text('{"type": "object"}')
    return file


def linked(file: Path, target: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(target)


# What lies outside


@pytest.mark.parametrize("name", ["model.toml", "features.schema.json", "output.schema.json", "model.onnx"])
def test_no_file_of_a_package_leads_out_of_it(package: Path, secret: Path, name: str) -> None:
    linked(package / name, secret)
    with pytest.raises(PackageBroken, match=r"leads out of the package|lies outside the package"):
        load_package(package)


def test_a_reference_and_traffic_rules_lead_nowhere_either(package: Path, secret: Path) -> None:
    linked(package / "reference.json", secret)
    with pytest.raises(ReferenceBroken, match="leads out"):
        read_reference(package)
    linked(package / "traffic.toml", secret)
    with pytest.raises(TrafficBroken, match="leads out"):
        read_traffic(package)


@pytest.mark.parametrize("name", ["../secret", "../../etc/hostname", "/etc/hostname", "a/../../secret"])
def test_no_name_in_a_manifest_leads_out_of_the_package(package: Path, secret: Path, name: str) -> None:
    manifest = package / "model.toml"
    manifest.write_text(manifest.read_text().replace('"model.onnx"', json.dumps(name)))
    with pytest.raises(PackageBroken, match="lies outside the package"):
        load_package(package)


def test_links_round_in_circles_are_not_followed(package: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (package / name).symlink_to(package, target_is_directory=True)
    with pytest.raises(PackageBroken):
        install(package, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    linked(package / "model.onnx", package / "model.onnx")
    with pytest.raises(PackageBroken):
        load_package(package)


def test_a_pipe_is_not_waited_for(package: Path, tmp_path: Path) -> None:
    os.mkfifo(package / "notes")
    with pytest.raises(PackageBroken, match="neither a file nor a folder"):
        install(package, tmp_path / "models")
    (package / "features.schema.json").unlink()
    os.mkfifo(package / "features.schema.json")
    with pytest.raises(PackageBroken, match="This is no file"):
        load_package(package)


def test_a_broken_package_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_package(models, name="first")
    bad = write_package(models, name="second")
    write_package(models, name="third")
    (bad / "weights").symlink_to(tmp_path / "nowhere")
    (bad / "model.toml").write_text("a = " + "[" * 100_000)
    for registry in (live_registry(tmp_path), Registry.discover(models)):
        assert registry.names == ["first", "third"]
        (broken,) = registry.unavailable
        assert "nested too deep" in broken.reason


# What is small and becomes huge


@pytest.mark.parametrize("name", ["model.toml", "features.schema.json"])
def test_files_of_text_have_a_bound(package: Path, name: str) -> None:
    with (package / name).open("r+b") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(PackageBroken, match="larger than"):
        load_package(package)


@pytest.mark.parametrize("deep", ['{"a":', '{"type": "object", "not": '])
def test_a_schema_that_is_nested_deep_is_refused(package: Path, deep: str) -> None:
    (package / "features.schema.json").write_text(deep * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(PackageBroken):
        load_package(package)


def test_a_schema_cannot_have_billions_of_values_made_up() -> None:
    for field in (
        {"type": "array", "minItems": 10**9, "items": {"type": "number"}},
        {"type": "string", "minLength": 10**9},
        {"$ref": "#"},
        {"type": "array", "minItems": 5_000, "items": {"type": "array", "minItems": 5_000}},
    ):
        schema = {"type": "object", "required": ["x"], "properties": {"x": field}}
        assert samples(schema, 10) == []


def archive(entries: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, entry in entries.items():
            made.writestr(name, entry)
    return content.getvalue()


@pytest.mark.parametrize(
    "entries",
    [
        {"schema.json": b" " * (33 * 1024 * 1024)},
        {"schema.json": b"{}", "1.npy": bytes(40 * 1024 * 1024), "2.npy": bytes(40 * 1024 * 1024)},
    ],
    ids=["schema", "arrays"],
)
def test_an_archive_that_unpacks_to_what_no_memory_holds_is_refused(tmp_path: Path, entries: dict[str, bytes]) -> None:
    content = archive(entries)
    assert len(content) < 200_000
    file = tmp_path / "model.skops"
    file.write_bytes(content)
    with pytest.raises(CannotGuess, match=r"unpacks to|has \d+ bytes"):
        skops.guess(file)


def test_an_archive_may_not_lie_about_its_size(tmp_path: Path) -> None:
    content = archive({"schema.json": b"0" * 10_000_000})
    # The size stands in front of the entry and in the directory at the end.
    lie = content.replace((10_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lie != content
    file = tmp_path / "model.skops"
    file.write_bytes(lie)
    with pytest.raises(CannotGuess, match="skops cannot load"):
        skops.guess(file)


MLMODEL = """\
flavors:
  sklearn: {{pickled_model: model.skops, serialization_format: skops}}
signature:
  inputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "float64", "shape": [-1, {width}]}}}}]'
"""


@pytest.mark.parametrize("width", [10**9, "true", '"x"', "1e99"])
def test_a_signature_cannot_claim_any_number_of_columns(tmp_path: Path, width: object) -> None:
    (tmp_path / "MLmodel").write_text(MLMODEL.format(width=width))
    with pytest.raises(CannotGuess):
        mlflow.guess(tmp_path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text('{"x": "' + "x" * 3_000_000)
    with pytest.raises(UnreadableRows, match="line 1 has more than"):
        list(read_rows(file, {"properties": {"x": {"type": "string"}}}))
