"""Which version of a model gets the requests that name none: `traffic.toml` in the operator's folder of models.

[flight-delay]
default = "1.0.0"                              # else the highest version
weights = { "1.0.0" = 95, "1.1.0" = 5 }        # a canary: parts of what names no version
shadow = ["1.2.0"]                             # runs on the same inputs, compared, never answered, never charged
"""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from foretell.inference.small_files import Unfit, read_small

FILE = "traffic.toml"


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the requests for one model are divided."""

    default: str | None = None
    weights: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]] = {}
    shadow: list[str] = []


class TrafficBroken(Exception):
    """What is wrong with the file, and what to do; a sentence or two."""


def read_traffic(folder: Path) -> dict[str, Split]:
    """The rules in `folder` by model; none without the file. Raises `TrafficBroken`."""
    file = folder / FILE
    try:
        rules = msgspec.convert(tomllib.loads(read_small(file).decode("utf-8")), dict[str, Split])
    except FileNotFoundError:
        return {}
    except Unfit as error:
        raise TrafficBroken(f"{error.what} ({file}). {error.remedy}") from error
    except RecursionError as error:
        raise TrafficBroken(f"The file is nested too deep ({file}). Correct it there.") from error
    except tomllib.TOMLDecodeError as error:
        raise TrafficBroken(f"The file is not TOML: {error} ({file}). Correct it there.") from error
    except msgspec.ValidationError as error:
        raise TrafficBroken(f"The rules do not fit: {error} ({file}). Correct that field.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrafficBroken(f"The file cannot be read: {error} ({file}). It must be readable UTF-8 text.") from error
    for name, split in rules.items():
        if split.weights and not any(split.weights.values()):
            raise TrafficBroken(f"All weights of {name} are 0 ({file}). Give one of them more.")
    return rules
