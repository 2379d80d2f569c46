"""Installs and removes packages in the operator's folder of models, atomically for the services."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from foretell.inference.live import touch_stamp
from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, load_package
from foretell.inference.python_class import schemas
from foretell.inference.registry import Registry, shipped_folder
from foretell.kit.errors import ForetellError


class AlreadyInstalled(ForetellError):
    """{model} {version} is installed already ({path}). Give the package another version, or replace it: --replace"""

    code = "already_installed"


class NotInstalled(ForetellError):
    """There is no {model} in {folder}. Installed there: {known}."""

    code = "not_installed"


class WhichVersion(ForetellError):
    """There are several versions of {model}: {versions}. Name one: --version"""

    code = "which_version"


class NotServed(ForetellError):
    """{reasons} {outcome}"""

    code = "model_not_served"


class Ships(ForetellError):
    """{model} {version} comes with Foretell and cannot be removed."""

    code = "ships_with_foretell"


def install(
    source: Path,
    folder: Path,
    *,
    replace: bool = False,
    approve: Callable[[Path], None] = lambda _: None,
    followed: Callable[[ModelPackage], str] = lambda _: "",
) -> ModelPackage:
    """Copy the package in `source` to FOLDER/NAME/VERSION and touch the stamp. Returns the installed package.

    `approve` gets the copy before services can see it, and raises if it must not be installed. `followed` waits for the
    services and returns why they can't serve it; then the previous state is restored.
    Raises `PackageBroken`, `AlreadyInstalled`, `NotServed`, and the errors of `approve` and `followed`.
    """
    _stay_inside(source)
    package = load_package(source)
    target = folder / package.name / package.version
    for known in _installed(folder, package.name):
        if known.version == package.version and not (replace and known.path == target):
            raise AlreadyInstalled(model=package.name, version=package.version, path=known.path)
    folder.mkdir(parents=True, exist_ok=True)
    # Names that begin with a dot are never read as packages, and a rename within the folder is atomic.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".add-") as draft:
        fresh, old = Path(draft) / "new", Path(draft) / "old"
        shutil.copytree(source, fresh, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        approve(fresh)
        # The check may have left bytecode with the path of the draft.
        for compiled in fresh.rglob("__pycache__"):
            shutil.rmtree(compiled)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        touch_stamp(folder)
        installed = load_package(target)
        reasons = followed(installed)
        if reasons:
            target.rename(fresh)
            if old.exists():
                old.rename(target)
            elif not any(target.parent.iterdir()):
                target.parent.rmdir()
            touch_stamp(folder)
            what = f"{package.name} {package.version}"
            back = "is what it was before" if target.exists() else "was taken out"
            raise NotServed(reasons=reasons, outcome=f"So {what} {back}.")
    return installed


def _stay_inside(source: Path) -> None:
    """Refuse a package with links to the outside, because the copy would contain other files of this machine.

    Also refuse links to folders, which may be circular, and special files, which can't be copied.
    """
    root = source.resolve()
    for file in sorted(source.rglob("*")):
        if file.is_symlink() and not os.path.realpath(file).startswith(f"{root}{os.sep}"):
            raise PackageBroken(
                "A link leads out of the package", file, "Put the file itself there, if it belongs to the model."
            )
        if (file.is_symlink() and not file.is_file()) or not (file.is_file() or file.is_dir()):
            raise PackageBroken("This is neither a file nor a folder", file, "Remove it, or put a file there.")


def remove(name: str, version: str | None, folder: Path) -> ModelPackage:
    """Remove a package from `folder` and touch the stamp. Returns the removed package.

    Raises `NotInstalled`, `WhichVersion`, `Ships`.
    """
    installed = _installed(folder, name)
    found = [package for package in installed if version in (None, package.version)]
    if not found:
        for package in Registry.discover(shipped_folder()):
            if package.name == name and version in (None, package.version):
                raise Ships(model=name, version=package.version)
        known = ", ".join(f"{each.name} {each.version}" for each in _installed(folder)) or "nothing"
        raise NotInstalled(model=f"{name} {version}" if version else name, folder=folder, known=known)
    if len(found) > 1:
        raise WhichVersion(model=name, versions=", ".join(package.version for package in found))
    (package,) = found
    with tempfile.TemporaryDirectory(dir=folder, prefix=".remove-") as away:
        package.path.rename(Path(away) / "old")
    if package.path.parent != folder and not any(package.path.parent.iterdir()):
        package.path.parent.rmdir()
    touch_stamp(folder)
    return package


def update(folder: Path) -> list[str]:
    """Recompute the hashes of a package's files, and the schemas of a Python class.

    Returns the names of the files that changed. Raises `PackageBroken`.
    """
    from foretell.inference.runtimes.python import load_class
    from foretell.inference.scaffolding import as_json

    package = load_package(folder)
    changed = []
    manifest = folder / MANIFEST
    text = fresh = manifest.read_text(encoding="utf-8")
    if package.manifest.artifact:
        fresh = _with_hash(fresh, "sha256", package.artifact_path)
    for name in package.manifest.files:
        fresh = _with_hash(fresh, name, folder / name)
    if fresh != text:
        manifest.write_text(fresh, encoding="utf-8")
        changed.append(MANIFEST)
    if package.manifest.runtime == "python":
        for stage, schema in schemas(load_class(package)).items():
            file = folder / f"{stage}.schema.json"
            if not file.exists() or file.read_text(encoding="utf-8") != as_json(schema):
                file.write_text(as_json(schema), encoding="utf-8")
                changed.append(file.name)
    return changed


def _with_hash(manifest: str, key: str, file: Path) -> str:
    """The text of a manifest, with the current sha256 of `file` as the value of `key`."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    line = rf"(?m)^([\"']?{re.escape(key)}[\"']?\s*=\s*)[\"'][0-9a-f]*[\"']"
    return re.sub(line, rf'\g<1>"{digest}"', manifest, count=1)


def _installed(folder: Path, name: str | None = None) -> list[ModelPackage]:
    if not folder.exists():
        return []
    return [package for package in Registry.discover(folder) if name in (None, package.name)]
