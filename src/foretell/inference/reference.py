"""The reference of a package, `reference.json`: how features and outputs were distributed in what it was trained on.

Optional. What passes by is counted in its bins (`observing.py`), and the monitoring service compares the counts. One
that is broken costs the package its look for drift, never the model.
"""

import hashlib
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from foretell.inference.small_files import Unfit, read_small
from foretell.kit.errors import ForetellError

FILE = "reference.json"

#: More bins than this of one field, or fields, say nothing more and make every heartbeat longer.
MAX_BINS = 1000
MAX_FIELDS = 500

Count = Annotated[int, Meta(ge=0, le=2**53)]
#: How far single days of the training data usually are from all of it, as a population stability index: one day of a
#: hundred is farther. 0: nobody has said.
Index = Annotated[float, Meta(ge=0)]


class ReferenceBroken(ForetellError):
    """The reference of this model can't be used: {reason} ({file})."""

    code = "reference_broken"


class Numbers(msgspec.Struct, frozen=True, tag_field="kind", tag="numeric", omit_defaults=True):
    """Numbers in bins: bin i holds what is at least `edges[i]` and less than `edges[i + 1]`; the last one its end too.

    What lay outside of the edges is in the first and the last bin. `of`: what is counted is the length of a text.
    """

    edges: list[float]
    counts: list[Count]
    mean: float | None = None
    std: float | None = None
    of: Literal["length"] | None = None
    missing: Count = 0
    usual_psi: Index = 0.0


class Categories(msgspec.Struct, frozen=True, tag_field="kind", tag="categorical", omit_defaults=True):
    """Texts, whole numbers and truth values (`true`, `false`), as texts. `other`: rows of all that are not listed."""

    counts: dict[str, Count]
    other: Count = 0
    missing: Count = 0
    usual_psi: Index = 0.0


Field = Numbers | Categories


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of the file. Names of nested fields are joined by dots: `probabilities.negative`."""

    rows: Annotated[int, Meta(ge=1)]
    features: dict[str, Field]
    outputs: dict[str, Field] = {}
    model: str = ""
    #: Of the file: whoever counted tells with it in which bins.
    sha256: str = ""


_decode = msgspec.json.Decoder(Reference).decode


def read_reference(folder: Path) -> Reference | None:
    """The reference of the package in `folder`; None when it has none. Raises `ReferenceBroken`."""
    file = folder / FILE
    try:
        content = read_small(file)
    except FileNotFoundError:
        return None
    except Unfit as error:
        raise ReferenceBroken(reason=error.what, file=file) from error
    except OSError as error:
        raise ReferenceBroken(reason=f"it cannot be read: {error.strerror}", file=file) from error
    try:
        reference = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReferenceBroken(reason=str(error), file=file) from error
    for part in (reference.features, reference.outputs):
        if len(part) > MAX_FIELDS:
            raise ReferenceBroken(reason=f"it has more than {MAX_FIELDS} fields", file=file)
        for name, field in part.items():
            problem = _problem(field)
            if problem:
                raise ReferenceBroken(reason=f"{name} {problem}", file=file)
    return msgspec.structs.replace(reference, sha256=hashlib.sha256(content).hexdigest())


def write_reference(folder: Path, reference: Reference) -> None:
    """Write it into the package in `folder`, whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(reference, sha256="")), indent=1)
    draft = folder / f".{FILE}"
    draft.write_bytes(text + b"\n")
    draft.replace(folder / FILE)


def _problem(field: Field) -> str | None:
    counts = field.counts if isinstance(field, Numbers) else list(field.counts.values())
    if not 0 < len(counts) <= MAX_BINS:
        return f"must have 1 to {MAX_BINS} bins"
    if isinstance(field, Numbers):
        if len(field.edges) != len(counts) + 1:
            return f"has {len(counts)} counts, so it must have {len(counts) + 1} edges"
        if not all(isfinite(edge) for edge in field.edges) or any(low >= high for low, high in pairwise(field.edges)):
            return "has edges that don't grow"
    return None if sum(counts) else "has counted nothing"
