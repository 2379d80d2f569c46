"""`foretell models`: from a trained model to an installed package, and what is said when something is wrong."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from foretell.cli.main import run
from foretell.inference.live import LiveRegistry


@dataclass
class Answer:
    """What one call of the command line gave."""

    code: int
    out: str
    error: str


class Models:
    """Calls `foretell models` as the entry point does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Answer:
        self._monkeypatch.setattr("sys.argv", ["foretell", "models", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run()
        captured = self._capsys.readouterr()
        code = caught.value.code
        return Answer(code if isinstance(code, int) else 0, captured.out, captured.err)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA_DIR", "MODELS_DIR", "ALLOWED_PICKLES"):
        monkeypatch.delenv(f"FORETELL_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Models:
    return Models(monkeypatch, capsys)


@pytest.fixture
def graph(folder: Path) -> Path:
    """An ONNX file: a matrix of three columns, doubled."""
    shape = (TensorProto.FLOAT, ["n", 3])
    nodes = [helper.make_node("Add", ["X", "X"], ["twice"])]
    values = [helper.make_tensor_value_info(name, *shape) for name in ("X", "twice")]
    content = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 15)], ir_version=8
    )
    file = folder / "Triple_Doubler v2.onnx"
    file.write_bytes(content.SerializeToString())
    return file


@pytest.fixture
def package(models: Models, graph: Path, folder: Path) -> Path:
    assert models("new", str(graph), "--output", "made").code == 0
    return folder / "made"


def test_a_package_is_made_checked_and_installed(models: Models, graph: Path, folder: Path) -> None:
    made = models("new", str(graph), "--output", "made")
    assert made.code == 0
    assert "x1 to x3" in made.out
    assert "foretell models check made" in made.out
    checked = models("check", "made")
    assert checked.code == 0, checked
    assert [line.split()[:2] for line in checked.out.splitlines()[:6]] == [
        ["ok", step] for step in ("package", "load", "examples", "rows", "batch", "time")
    ]
    added = models("add", "made")
    assert added.code == 0, added
    assert (folder / "data" / "models" / "triple-doubler-v2" / "1.0.0" / "model.onnx").is_file()
    listed = json.loads(models("list", "--json").out)
    assert {"flight-delay", "triple-doubler-v2"} <= {each["name"] for each in listed}
    assert models("check", "triple-doubler-v2").code == 0
    removed = models("remove", "triple-doubler-v2")
    assert removed.code == 0
    assert not (folder / "data" / "models" / "triple-doubler-v2").exists()


def test_services_that_run_are_told(models: Models, package: Path, folder: Path) -> None:
    (folder / "data" / "models").mkdir(parents=True)
    live = LiveRegistry.installed(None, folder / "data")
    models("add", str(package))
    assert live.refresh_if_told()
    assert live.get("triple-doubler-v2").version == "1.0.0"
    models("remove", "triple-doubler-v2")
    assert live.refresh_if_told()
    assert "triple-doubler-v2" not in live.names
    assert models("reload").code == 0
    assert live.refresh_if_told()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('default = "9.9.9"', "There is no version 9.9.9 of the model triple-doubler-v2"),
        ('weights = "many"', "The rules do not fit"),
    ],
)
def test_a_reload_checks_rules_before_any_service_is_told(
    models: Models, package: Path, folder: Path, rule: str, said: str
) -> None:
    assert models("add", str(package)).code == 0
    live = LiveRegistry.installed(None, folder / "data")
    rules = folder / "data" / "models" / "traffic.toml"
    rules.write_text(f"[triple-doubler-v2]\n{rule}\n")
    refused = models("reload")
    assert refused.code == 1
    assert said in refused.error
    assert "all serve what they did" in refused.error
    assert not live.refresh_if_told()
    rules.write_text('[triple-doubler-v2]\ndefault = "1.0.0"\n')
    assert models("reload").code == 0
    assert live.refresh_if_told()


def test_a_reload_loads_what_changed_before_any_service_is_told(models: Models, package: Path, folder: Path) -> None:
    assert models("add", str(package)).code == 0
    live = LiveRegistry.installed(None, folder / "data")
    artifact = folder / "data" / "models" / "triple-doubler-v2" / "1.0.0" / "model.onnx"
    good = artifact.read_bytes()
    artifact.write_bytes(b"no model")
    refused = models("reload")
    assert refused.code == 1
    assert "triple-doubler-v2 1.0.0: " in refused.error
    assert "sha256" in refused.error
    assert not live.refresh_if_told()
    artifact.write_bytes(good)
    assert models("reload").code == 0
    assert live.refresh_if_told()


def test_a_wrong_package_is_neither_ready_nor_installed(models: Models, package: Path, folder: Path) -> None:
    manifest = package / "model.toml"
    manifest.write_text(re.sub(r"output = { twice = \[[-0-9.]+", "output = { twice = [-7.5", manifest.read_text()))
    checked = models("check", "made")
    assert checked.code == 1
    assert "WRONG    examples  Example 1 gives another output: twice" in checked.out
    assert "made is not ready" in checked.error
    assert models("add", "made").code == 1
    assert list((folder / "data" / "models").iterdir()) == []
    assert models("add", "made", "--unchecked").code == 0


def test_a_model_that_works_in_its_own_folder_only_is_not_ready(
    models: Models, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "weights.txt").write_text("3")
    (folder / "near.py").write_text(NEAR)
    assert models("new", "near.py", "--output", "near").code == 0
    for arguments in (("check", "near"), ("add", "near")):
        answer = models(*arguments)
        assert answer.code == 1
        assert "No such file or directory: 'weights.txt'" in answer.out
        assert "near is not ready" in answer.error
    (folder / "near" / "model.py").write_text(NEAR.replace('"weights.txt"', 'folder / "weights.txt"'))
    (folder / "weights.txt").rename(folder / "near" / "weights.txt")
    assert models("add", "near").code == 0


NEAR = """
from pathlib import Path
from pydantic import BaseModel

class Row(BaseModel):
    x: int

class Near:
    def load(self, folder: Path) -> None:
        self.factor = int(Path("weights.txt").read_text())

    def predict(self, batch: list[Row]) -> list[Row]:
        return [Row(x=row.x * self.factor) for row in batch]
"""


def test_links_that_lead_out_of_a_package_are_not_followed(models: Models, package: Path, folder: Path) -> None:
    (folder / "secret.txt").write_text("somebody's")
    (package / "notes.txt").symlink_to(folder / "secret.txt")
    answer = models("add", "made")
    assert answer.code == 1
    assert "A link leads out of the package" in answer.error
    assert not (folder / "data").exists()
    (package / "notes.txt").unlink()
    (package / "notes.txt").symlink_to(package / "model.toml")
    assert models("add", "made").code == 0


def test_versions(models: Models, graph: Path, package: Path, folder: Path) -> None:
    assert models("add", "made").code == 0
    again = models("add", "made")
    assert again.code == 1
    assert "--replace" in again.error
    assert models("add", "made", "--replace").code == 0
    assert models("new", str(graph), "--output", "newer", "--model-version", "2.0.0").code == 0
    assert models("add", "newer").code == 0
    which = models("remove", "triple-doubler-v2")
    assert which.code == 1
    assert "1.0.0, 2.0.0" in which.error
    assert models("remove", "triple-doubler-v2", "--version", "1.0.0").code == 0
    installed = folder / "data" / "models" / "triple-doubler-v2"
    assert [place.name for place in installed.iterdir()] == ["2.0.0"]


def test_an_artifact_that_was_trained_anew_is_written_down(models: Models, package: Path) -> None:
    artifact = package / "model.onnx"
    # What stands behind the last field of a graph changes its hash and nothing else: an empty doc_string.
    artifact.write_bytes(artifact.read_bytes() + b"\x32\x00")
    assert "sha256" in models("check", "made").out
    updated = models("check", "made", "--update")
    assert updated.code == 0, updated
    assert "Written anew: model.toml." in updated.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("new", "absent.onnx"), "There is no file absent.onnx"),
        (("new", "."), "no model of MLflow"),
        (("new", "notes.txt"), "ends with none of"),
        (("new", "broken.onnx"), "onnxruntime cannot load"),
        (("new", "broken.skops"), "skops cannot load"),
        (("check", "no-such-model"), "neither a folder nor an installed model"),
        (("add", "./absent"), "lacks a file"),
        (("remove", "no-such-model"), "There is no no-such-model"),
        (("remove", "flight-delay"), "comes with Foretell"),
        (("reload",), "There is no folder of models"),
        (("serve", "./absent"), "lacks a file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    models: Models, folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    for name in ("notes.txt", "broken.onnx", "broken.skops"):
        (folder / name).write_text("no model")
    answer = models(*arguments)
    assert answer.code == 1
    assert words in answer.error
    assert "Traceback" not in answer.error
    assert "fault of ours" not in answer.error


def test_a_folder_with_something_in_it_is_not_overwritten(models: Models, graph: Path, package: Path) -> None:
    before = sorted(package.iterdir())
    refused = models("new", str(graph), "--output", "made")
    assert refused.code == 1
    assert "is there already" in refused.error
    assert sorted(package.iterdir()) == before
