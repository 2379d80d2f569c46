"""Reads the small files of an untrusted package: only regular files inside it, with a size limit."""

from pathlib import Path

#: Manifests and schemas have kilobytes; a reference, or a schema with many choices, is larger.
MOST_BYTES = 8 * 1024 * 1024


class Unfit(Exception):
    """The problem of a file as half a sentence, and a remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def read_small(file: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a file. Raises `Unfit`, `FileNotFoundError` and other kinds of `OSError`."""
    try:
        is_inside = file.resolve().is_relative_to(file.parent.resolve())
    except RuntimeError:  # Python 3.11 and 3.12 raise it for links in a circle
        is_inside = False
    if not is_inside:
        raise Unfit("A link leads out of the package", "Put the file itself there.")
    if not file.exists():
        raise FileNotFoundError(2, "No such file or directory", str(file))
    if not file.is_file():
        # Opening a pipe could block forever.
        raise Unfit("This is no file", "Put a file there.")
    with file.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise Unfit(f"The file is larger than {most_bytes} bytes", "Make it smaller.")
    return content
