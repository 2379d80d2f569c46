"""The reference of a package, `reference.json`: the distribution of features and outputs in the training data.

It is optional. Live rows are counted in its bins (`observing.py`), and the monitoring service compares the counts. A
broken reference disables drift detection for the package, but not the model.
"""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from foretell.contracts.reports.drift import NotCompared as NotCompared
from foretell.inference.small_files import Unfit, read_small
from foretell.kit.errors import ForetellError

FILE = "reference.json"

#: Limit of bins per field, and of fields: more give no more information and make every heartbeat longer.
MAX_BINS = 1000
MAX_FIELDS = 500

Count = Annotated[int, Meta(ge=0, le=2**53)]
#: The usual difference between one day and all training data, as a population stability index: one day of a hundred
#: exceeds it. 0: unknown.
Index = Annotated[float, Meta(ge=0)]


class ReferenceBroken(ForetellError):
    """The reference of this model can't be used: {reason} ({file})."""

    code = "reference_broken"


class Numbers(msgspec.Struct, frozen=True, tag_field="kind", tag="numeric", omit_defaults=True):
    """Numbers in bins: bin i has values from `edges[i]` to below `edges[i + 1]`; the last one includes its end.

    Values outside of the edges are in the first and the last bin. `of`: the numbers are lengths of texts.
    """

    edges: list[float]
    counts: list[Count]
    mean: float | None = None
    std: float | None = None
    of: Literal["length"] | None = None
    missing: Count = 0
    usual_psi: Index = 0.0


class Categories(msgspec.Struct, frozen=True, tag_field="kind", tag="categorical", omit_defaults=True):
    """Texts, whole numbers and truth values (`true`, `false`), as texts. `other`: rows with values that are not listed.

    A field that was missing in every row has no category, and its `missing` counts all rows.
    """

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
    #: Hash of the file; counts are sent with it, to identify the bins.
    sha256: str = ""


_decode = msgspec.json.Decoder(Reference).decode


def read_reference(folder: Path) -> Reference | None:
    """The reference of the package in `folder`, or None. Raises `ReferenceBroken`."""
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
    """Write it into the package in `folder`, atomically."""
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(reference, sha256="")), indent=1)
    draft = folder / f".{FILE}"
    draft.write_bytes(text + b"\n")
    draft.replace(folder / FILE)


def not_compared(
    reference: Reference, features_schema: Mapping[str, Any], output_schema: Mapping[str, Any]
) -> list[NotCompared]:
    """Inputs and outputs in the model's JSON Schemas that are not compared with the reference."""
    found = []
    parts: tuple[tuple[Literal["feature", "output"], Mapping[str, Any], Mapping[str, Field]], ...] = (
        ("feature", features_schema, reference.features),
        ("output", output_schema, reference.outputs),
    )
    for part, schema, fields in parts:
        found += [
            NotCompared(name, part, "The reference lacks it.")
            for name in _names(schema)
            if name not in fields and not any(each.startswith(f"{name}.") for each in fields)
        ]
        for name, field in fields.items():
            if hides_other_values(field):
                reason = "It had one value only, and its bin holds others, too: make the reference anew."
                found.append(NotCompared(name, part, reason))
    return found


def _names(schema: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Names of the fields of an object; nested names are joined by dots."""
    for name, inner in schema.get("properties", {}).items():
        if isinstance(inner, Mapping) and isinstance(inner.get("properties"), Mapping):
            yield from _names(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def is_never_there(field: Field) -> bool:
    """Whether it was missing in every row of the reference."""
    return isinstance(field, Categories) and not field.counts and not field.other and field.missing > 0


def hides_other_values(field: Field) -> bool:
    """Whether it was constant, but its bin is so wide that other values would not be noticed.

    The first versions of Foretell made such bins, as wide as the number is large and at least 1.
    """
    if not isinstance(field, Numbers) or len(field.counts) > 1 or field.std != 0 or field.mean is None:
        return False
    low, high = field.edges
    return high - low > max(abs(field.mean), 1.0) / 2


def _problem(field: Field) -> str | None:
    if is_never_there(field):
        return None
    counts = field.counts if isinstance(field, Numbers) else list(field.counts.values())
    if not 0 < len(counts) <= MAX_BINS:
        return f"must have 1 to {MAX_BINS} bins"
    if isinstance(field, Numbers):
        if len(field.edges) != len(counts) + 1:
            return f"has {len(counts)} counts, so it must have {len(counts) + 1} edges"
        if not all(isfinite(edge) for edge in field.edges) or any(low >= high for low, high in pairwise(field.edges)):
            return "has edges that don't grow"
    return None if sum(counts) else "has counted nothing"
