"""Imports the Python files that a package brings along."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from foretell.inference.package import ModelPackage, PackageBroken


def load_code(package: ModelPackage, entry: str, what: str = "function") -> Any:
    """What `entry`, "FILE:NAME", names: a `what` in a file of the package. Raises `PackageBroken`.

    Runs the file anew at every call: it may have changed.
    """
    file_stem, _, name = entry.partition(":")
    file = package.path / f"{file_stem}.py"
    # Versions stand side by side, so each file is a module of its own, named after its package.
    module_name = f"foretell_package_{package.name}_{package.version}_{file_stem}".replace("-", "_").replace(".", "_")
    try:
        module = import_file(file, module_name)
    except (Exception, SystemExit) as error:
        # A file that calls exit() must not take a service with it.
        raise PackageBroken(
            f"The file cannot be imported: {type(error).__name__}: {error}", file, "Correct it there."
        ) from error
    if not hasattr(module, name):
        raise PackageBroken(f"There is no {what} {name} in the file", file, "Correct the entry in model.toml.")
    return getattr(module, name)


class _Uncached(SourceFileLoader):
    """Runs the file itself, and neither reads nor writes bytecode beside it.

    Bytecode is taken for that of a file with the same size and time in whole seconds, which another version of the file
    may have; and it is no file of the manifest, whose hashes say what may run.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_file(file: Path, module_name: str) -> Any:
    """The module of a Python file. Raises whatever the file raises."""
    spec = importlib.util.spec_from_file_location(module_name, file, loader=_Uncached(module_name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: dataclasses and pydantic look their own module up.
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
