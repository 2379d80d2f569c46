"""A model whose preprocessing does to the worker what the input asks for.

It is the flight delay model with another preprocessing: the `weather_code` of a row says what happens. So every flight
that `flight-delay` takes is innocent here too.
"""

import shutil
from pathlib import Path

from foretell.inference.registry import shipped_folder

NAME = "faulty"
#: A prediction of this model has failed with `timeout` after this long.
TIMEOUT_S = 2.0

#: Ends the process.
CRASHES = 666
#: Sleeps for an hour.
HANGS = 777
#: Codes from here on sleep that many milliseconds less this.
SLEEPS_MS = 10_000

_PREPROCESSING = f"""
import os
import time


def preprocess(row):
    code = row["weather_code"]
    if code == {CRASHES}:
        os._exit(66)
    if code == {HANGS}:
        time.sleep(3600)
    if code >= {SLEEPS_MS}:
        time.sleep((code - {SLEEPS_MS}) / 1000)
    return {{
        "carrier": row["carrier"],
        "dep_hour": int(row["departure_time"][:2]),
        "distance": row["distance_miles"],
        "weather_delay": 0,
    }}
"""


def write_faulty_model(models: Path) -> None:
    """Put the package into the folder `models`."""
    package = models / NAME
    package.mkdir(parents=True)
    shipped = shipped_folder() / "flight_delay"
    for name in ("features.schema.json", "input.schema.json", "output.schema.json", "model.onnx"):
        shutil.copy(shipped / name, package)
    manifest, _, _ = (shipped / "model.toml").read_text().partition("[[examples]]")
    changes = {
        'name = "flight-delay"': f'name = "{NAME}"',
        "timeout_s = 10": f"timeout_s = {TIMEOUT_S:g}",
        'preprocessing_takes = "rows"': 'preprocessing_takes = "row"',
    }
    for old, new in changes.items():
        assert old in manifest, f"the manifest of flight-delay no longer says {old}"
        manifest = manifest.replace(old, new)
    (package / "model.toml").write_text(manifest)
    (package / "preprocessing.py").write_text(_PREPROCESSING)


def flight(weather_code: int) -> dict[str, object]:
    """The input of a flight, with the code that says what happens."""
    return {"carrier": "AA", "departure_time": "17:45", "distance_miles": 1389, "weather_code": weather_code}
