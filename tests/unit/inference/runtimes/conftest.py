"""Packages for each runtime, made by the scaffold as `foretell models new` makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretell.inference.package import ModelPackage, load_package
from foretell.inference.runtimes import Permissions
from foretell.inference.scaffolding import scaffold

Made = Callable[..., ModelPackage]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Scaffolds a package of a file and reads it; `edit` changes the text of its manifest."""

    def make(source: Path, edit: Callable[[str], str] | None = None, **permissions: Any) -> ModelPackage:
        folder = tmp_path / "package"
        scaffold(source, folder, name=None, version="1.0.0", permissions=Permissions(**permissions))
        if edit is not None:
            manifest = folder / "model.toml"
            manifest.write_text(edit(manifest.read_text()))
        return load_package(folder)

    return make
