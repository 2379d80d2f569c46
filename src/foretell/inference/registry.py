"""The registry of models: shipped packages and those of the operator, with several versions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import foretell.models
from foretell.inference.package import MANIFEST, ModelPackage, PackageBroken, load_package, version_key
from foretell.kit.errors import ForetellError


class ModelNotFound(ForetellError):
    """There is no model {model}."""

    code = "model_not_found"
    status = 404


class VersionNotFound(ModelNotFound):
    """There is no version {version} of the model {model}."""


@dataclass(frozen=True, slots=True)
class UnavailablePackage:
    """A folder (or a model's name) that can't be served, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Found:
    """The packages in the folders; replaced as a whole, so that threads never see half of a change."""

    models: dict[str, dict[str, ModelPackage]]
    defaults: dict[str, str]
    unavailable: tuple[UnavailablePackage, ...]


class Registry:
    """The packages of this process at its start. It never changes, so threads can share it.

    See live.py for one that is read again when packages change.
    """

    #: Up to which change of the folders this process has followed; says something in live.py only.
    followed = ""

    def __init__(
        self,
        packages: list[ModelPackage],
        unavailable: list[UnavailablePackage] | None = None,
        *,
        defaults: Mapping[str, str] | None = None,
    ) -> None:
        """Of two packages with the same name and version the first one is used; the other is unavailable.

        `defaults`: default versions by model; otherwise it is the highest version, a pre-release only if there is
        no other.
        """
        self._found = _arrange(packages, list(unavailable or []), defaults or {})

    @property
    def unavailable(self) -> tuple[UnavailablePackage, ...]:
        """Packages that can't be served, with the reasons."""
        return self._found.unavailable

    @classmethod
    def discover(cls, *folders: Path, defaults: Mapping[str, str] | None = None) -> "Registry":
        """Read every package in `folders`: FOLDER/PACKAGE/model.toml, or FOLDER/MODEL/VERSION/model.toml.

        Never raises for broken packages: these are in `unavailable`, and the others are served.
        """
        packages, unavailable = read_packages(folders)
        return cls(packages, unavailable, defaults=defaults)

    def get(self, name: str, version: str | None = None) -> ModelPackage:
        """One package; without `version` the default one. Raises `ModelNotFound`, `VersionNotFound`."""
        found = self._found
        versions = found.models.get(name)
        if versions is None:
            raise ModelNotFound(model=name)
        package = versions.get(version or found.defaults[name])
        if package is None:
            raise VersionNotFound(model=name, version=version)
        return package

    def resolve(self, name: str, version: str) -> ModelPackage:
        """The package of a task that was accepted some time ago. Raises `ModelNotFound`, `VersionNotFound`."""
        return self.get(name, version)

    def __iter__(self) -> Iterator[ModelPackage]:
        """Every version of every model, by name, oldest version first."""
        for versions in self._found.models.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(len(versions) for versions in self._found.models.values())

    @property
    def names(self) -> list[str]:
        """The models, sorted."""
        return list(self._found.models)

    def versions(self, name: str) -> list[str]:
        """The versions of a model, oldest first. Raises `ModelNotFound`."""
        versions = self._found.models.get(name)
        if versions is None:
            raise ModelNotFound(model=name)
        return list(versions)

    @property
    def default_versions(self) -> Mapping[str, str]:
        """The default version of each model."""
        return MappingProxyType(self._found.defaults)


def shipped_folder() -> Path:
    """The folder of the packages that ship with Foretell."""
    return Path(foretell.models.__path__[0])


Reader = Callable[[Path], ModelPackage]


def read_packages(
    folders: Iterable[Path], read: Reader = load_package
) -> tuple[list[ModelPackage], list[UnavailablePackage]]:
    """The packages in the folders, in order, and the broken ones. Never raises for broken packages."""
    packages: list[ModelPackage] = []
    unavailable: list[UnavailablePackage] = []
    for folder in folders:
        try:
            for place in _package_folders(folder):
                try:
                    packages.append(read(place))
                except PackageBroken as error:
                    unavailable.append(UnavailablePackage(str(place), error.message))
                except OSError as error:
                    # One unreadable package must not prevent the others.
                    reason = f"The package cannot be read: {error.strerror}: {error.filename}."
                    unavailable.append(UnavailablePackage(str(place), reason))
        except OSError as error:
            reason = f"The folder of models cannot be read: {error.strerror}. Create it, or name another."
            unavailable.append(UnavailablePackage(str(folder), reason))
    return packages, unavailable


def _arrange(packages: list[ModelPackage], problems: list[UnavailablePackage], defaults: Mapping[str, str]) -> _Found:
    models: dict[str, dict[str, ModelPackage]] = {}
    for package in packages:
        versions = models.setdefault(package.name, {})
        first = versions.setdefault(package.version, package)
        if first is not package:
            reason = f"{package.name} {package.version} is already there, from {first.path}. Change its version."
            problems.append(UnavailablePackage(str(package.path), reason))
    by_age = {
        name: dict(sorted(versions.items(), key=lambda each: version_key(each[0])))
        for name, versions in sorted(models.items())
    }
    chosen = {name: highest(list(versions)) for name, versions in models.items()}
    for name, version in defaults.items():
        if version in models.get(name, {}):
            chosen[name] = version
        else:
            reason = f"The default version {version} is not installed. Install it, or name another."
            problems.append(UnavailablePackage(name, reason))
    return _Found(by_age, chosen, tuple(problems))


def highest(versions: list[str]) -> str:
    """The default version without a rule: the highest, a pre-release only if there is no other."""
    released = [version for version in versions if "-" not in version]
    return max(released or versions, key=version_key)


def _package_folders(folder: Path) -> Iterator[Path]:
    """Every folder that is, or ought to be, a package."""
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or place.name.startswith((".", "_")) or place.name == "lost+found":
            continue
        if (place / MANIFEST).exists():
            yield place
        versions = [inner for inner in sorted(place.iterdir()) if (inner / MANIFEST).is_file()]
        yield from versions
        if not versions and not (place / MANIFEST).exists() and any(place.iterdir()):
            # Reading it reports what is missing; otherwise the model would be silently absent.
            yield place
