"""Imports the Python files of a package."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from foretell.inference.package import ModelPackage, PackageBroken


def load_code(package: ModelPackage, entry: str, what: str = "function") -> Any:
    """The object of `entry`, "FILE:NAME", in a file of the package; `what` is its kind. Raises `PackageBroken`.

    Runs the file again at every call, because it may have changed.
    """
    file_stem, _, name = entry.partition(":")
    file = package.path / f"{file_stem}.py"
    # Several versions may be loaded, so the module is named after the package and version.
    module_name = f"foretell_package_{package.name}_{package.version}_{file_stem}".replace("-", "_").replace(".", "_")
    try:
        module = import_file(file, module_name)
    except (Exception, SystemExit) as error:
        # A file that calls exit() must not end the service.
        raise PackageBroken(
            f"The file cannot be imported: {type(error).__name__}: {error}", file, "Correct it there."
        ) from error
    if not hasattr(module, name):
        raise PackageBroken(f"There is no {what} {name} in the file", file, "Correct the entry in model.toml.")
    return getattr(module, name)


class _Uncached(SourceFileLoader):
    """Runs the source file, and neither reads nor writes bytecode.

    Python accepts bytecode if size and time (in whole seconds) of the source match, which may be true for another
    version of the file. And bytecode is not covered by the hashes in the manifest.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_file(file: Path, module_name: str) -> Any:
    """The module of a Python file. Raises the errors of the file."""
    spec = importlib.util.spec_from_file_location(module_name, file, loader=_Uncached(module_name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, because dataclasses and pydantic look up their module.
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
