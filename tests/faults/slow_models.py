"""Models that take their time to load, or can't be loaded at all: classes of Python."""

from pathlib import Path

from foretell.inference.runtimes import NOTHING_MORE
from foretell.inference.scaffolding import scaffold

#: The `x` on which a model does as it is told.
ASKED = 1234.5

_CLASS = """
import time
from pathlib import Path

from pydantic import BaseModel


class Number(BaseModel):
    x: float


class Answer(BaseModel):
    y: float


class Slow:
    def load(self, folder: Path) -> None:
        {load}

    def predict(self, batch: list[Number]) -> list[Answer]:
        # Not for the example of the package, with which a worker tries what it has loaded.
        if batch[0].x == {asked}:
            {predict}
            time.sleep({takes_s})
        return [Answer(y=row.x * 2) for row in batch]
"""


def write_python_model(
    models: Path, name: str, *, load: str = "pass", predict: str = "pass", takes_s: float = 0.0, timeout_s: float = 10.0
) -> None:
    """Put a package into the folder `models` that doubles `x`, once `load` has run."""
    code = models.parent / "code.py"
    code.write_text(_CLASS.format(load="pass", predict="pass", takes_s=0.0, asked=ASKED))
    package = models / name
    scaffold(code, package, name=name, version="1.0.0", permissions=NOTHING_MORE)
    # Only now: a package is tried when it is made.
    (package / "model.py").write_text(_CLASS.format(load=load, predict=predict, takes_s=takes_s, asked=ASKED))
    manifest = package / "model.toml"
    manifest.write_text(manifest.read_text().replace("timeout_s = 10", f"timeout_s = {timeout_s:g}"))


def waits_for(file: Path) -> str:
    """A load that is over when this file is there."""
    return f"while not Path({str(file)!r}).exists(): time.sleep(0.05)"
