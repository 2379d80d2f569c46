"""Settings from files: with `FORETELL_SECRET_KEY_FILE=/run/secrets/secret_key` the key is read from that file.

Every setting can be given in this way; use it for secrets, which Docker and Kubernetes provide as files. With
`FORETELL_SECRETS_DIR`, every file of that folder with a setting's name (`FORETELL_SECRET_KEY`) gives that setting.
A setting in the environment takes precedence over a `_FILE`, and a `_FILE` over a file in the folder.
"""

from collections.abc import MutableMapping
from pathlib import Path

from foretell.kit.errors import Misconfigured

_SUFFIX = "_FILE"
_PREFIXES = ("FORETELL_", "TELEGRAM_")
_FOLDER = "FORETELL_SECRETS_DIR"
#: A setting is one line; a larger file is a mistake.
_MAX_BYTES = 64 * 1024


def take_from_files(environment: MutableMapping[str, str]) -> None:
    """Replace every `NAME_FILE` of Foretell in `environment` by the setting `NAME`, without the line end.

    Raises `Misconfigured` for a file that is missing, empty, too large or not text, without its content.
    """
    named = [name for name in environment if name.startswith(_PREFIXES) and name.endswith(_SUFFIX)]
    for name in sorted(named):
        file, setting = environment.pop(name), name.removesuffix(_SUFFIX)
        if file and not environment.get(setting):
            environment[setting] = _content(name, Path(file))
    folder = environment.pop(_FOLDER, "")
    if folder:
        _take_from_folder(environment, Path(folder))


def _take_from_folder(environment: MutableMapping[str, str], folder: Path) -> None:
    try:
        files = sorted(place for place in folder.iterdir() if place.name.startswith(_PREFIXES) and place.is_file())
    except OSError as error:
        raise Misconfigured(f"{_FOLDER}: {folder} can't be read ({error.strerror}).") from error
    for file in files:
        if not environment.get(file.name):
            environment[file.name] = _content(_FOLDER, file)


def _content(name: str, file: Path) -> str:
    try:
        with file.open("rb") as stream:
            read = stream.read(_MAX_BYTES + 1)
        text = read.decode("utf-8").strip()
    except OSError as error:
        raise Misconfigured(f"{name}: {file} can't be read ({error.strerror}).") from error
    except UnicodeDecodeError:
        raise Misconfigured(f"{name}: {file} is no UTF-8 text.") from None
    if len(read) > _MAX_BYTES:
        raise Misconfigured(f"{name}: {file} has more than {_MAX_BYTES // 1024} KiB, which is no setting.")
    if not text or "\0" in text:
        raise Misconfigured(f"{name}: {file} {'has a zero byte' if text else 'is empty'}.")
    return text
