"""Drift on the real data: a random split is quiet, other seasons, storms and broken feeds are not.

Real rows go through the real model with the real observer, and what it counted through the real look. Needs
foretell[train] for the data.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pandas as pd
import pytest

from foretell.contracts.monitoring import Observation
from foretell.contracts.reports.drift import VersionFinding
from foretell.inference.distribution import describe
from foretell.inference.engine import Engine
from foretell.inference.observing import Observer, Sampler
from foretell.inference.package import ModelPackage, load_package
from foretell.inference.reference import Field, Reference, read_reference
from foretell.inference.registry import Registry, shipped_folder
from foretell.kit.clock import now
from foretell.models.flight_delay.data import read_flights, split_by_day
from foretell.services.monitoring.drift.findings import find
from foretell.services.monitoring.drift.tallies import Tally

Row = dict[str, Any]
Change = Callable[[Row], Row]

HOUR, DAY = 3600.0, 86_400.0


class Flights:
    """The flights of 2013, the model, and what it was trained on."""

    def __init__(self) -> None:
        self.all = read_flights().table
        self.training, self.held_out = split_by_day(self.all)
        self.package: ModelPackage = load_package(shipped_folder() / "flight_delay")
        reference = read_reference(self.package.path)
        assert reference is not None
        self.reference: Reference = reference
        # Every row is looked at: what a sample costs is another test's matter.
        self._observer = Observer(10**6)
        self._days: dict[str, Observation] = {}
        self._engine = Engine(Registry([self.package]), watch=self._observer.watch)

    def rows(self, table: pd.DataFrame) -> list[Row]:
        columns = table[["carrier", "dep_hour", "distance", "weather_delay"]]
        rows: list[Row] = columns.astype({"distance": float, "weather_delay": float}).to_dict("records")
        return rows

    def answers(self, rows: list[Row]) -> list[Row]:
        answers = self._engine.predict(self.package, rows, "features", rehearsal=True)
        return [answer for answer in answers if isinstance(answer, dict)]

    def look(self, rows: list[Row]) -> VersionFinding:
        """What is found when these are asked within an hour."""
        return self.look_at(self.observe(rows), self.reference)

    def observe(self, rows: list[Row]) -> Observation:
        """What is observed when these are asked."""
        self._engine.predict(self.package, rows, "features")
        (observation,) = self._observer.take()
        assert observation.rows == observation.passed == len(rows)
        return observation

    def observe_day(self, day: pd.DataFrame, change: Change | None = None) -> Observation:
        """What is observed when the flights of this day are asked, each changed if it is said how."""
        if change is not None:
            return self.observe([change(row) for row in self.rows(day)])
        date = str(day["day"].iloc[0])
        if date not in self._days:
            self._days[date] = self.observe(self.rows(day))
        return self._days[date]

    def look_over_days(self, table: pd.DataFrame, change: Change | None = None) -> VersionFinding:
        """What is found when the flights of each day were asked on a day of their own, in a window of them all."""
        moment = now()
        days = [day for _, day in table.groupby("day")]
        window_s = len(days) * DAY
        tally = Tally(self.reference, [window_s])
        for ago, day in enumerate(reversed(days)):
            observation = self.observe_day(day, change)
            until = moment - timedelta(days=ago)
            since = until - timedelta(hours=18)
            tally.add(msgspec.structs.replace(observation, since=since, until=until), moment)
        return find(self.package.name, self.package.version, self.reference, tally, [window_s], moment)

    def look_with(self, reference: Reference, table: pd.DataFrame) -> VersionFinding:
        """What is found when these are asked of a model that was trained on something else."""
        rows = self.rows(table)
        sampler = Sampler(self.package.name, self.package.version, reference, len(rows))
        sampler.offer(rows, self.answers(rows))
        observation = sampler.take()
        assert observation is not None
        return self.look_at(observation, reference)

    def look_at(self, observation: Observation, reference: Reference) -> VersionFinding:
        moment = now()
        tally = Tally(reference, [HOUR])
        tally.add(observation, moment)
        return find(self.package.name, self.package.version, reference, tally, [HOUR], moment)


@pytest.fixture(scope="module")
def flights() -> Flights:
    return Flights()


def statuses(found: VersionFinding, *wanted: str) -> set[str]:
    return {field.name for field in found.findings if field.status in wanted}


def psi(found: VersionFinding, name: str) -> float:
    index = next(field.psi for field in found.findings if field.name == name)
    assert index is not None
    return index


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [500, 1000, 5000, 20_000])
@pytest.mark.parametrize("part", ["held_out", "all"])
def test_a_random_split_is_quiet(flights: Flights, part: str, size: int, seed: int) -> None:
    table = getattr(flights, part).sample(size, random_state=seed)
    found = flights.look(flights.rows(table))
    assert found.status == "stable"
    assert statuses(found, "shifting", "drifted", "not_enough_data") == set()


def test_too_few_rows_are_no_drift(flights: Flights) -> None:
    storm = flights.all[flights.all["day"] == "2013-06-07"]
    found = flights.look(flights.rows(storm)[:400])
    assert found.status == "not_enough_data"
    assert {field.status for field in found.findings} == {"not_enough_data"}


@pytest.mark.parametrize("month", [9, 12])
def test_the_driest_and_the_wettest_month_shift(flights: Flights, month: int) -> None:
    """September has the most clear hours, December the most cloudy ones."""
    found = flights.look_over_days(flights.all[flights.all["month"] == month])
    assert found.windows[0].rows > 26_000
    assert found.status == "shifting"
    assert statuses(found, "shifting") == {"weather_delay"}
    assert psi(found, "weather_delay") > 0.1


@pytest.mark.parametrize("month", [1, 7, 8])
def test_a_month_like_the_year_is_stable(flights: Flights, month: int) -> None:
    """Weather is all that the seasons change in these features, and over these months it is about the year's."""
    assert flights.look_over_days(flights.all[flights.all["month"] == month]).status == "stable"


def without_usual(reference: Reference) -> Reference:
    """A reference that does not say how far days usually are from it."""

    def stripped(fields: dict[str, Field]) -> dict[str, Field]:
        return {name: msgspec.structs.replace(field, usual_psi=0.0) for name, field in fields.items()}

    return msgspec.structs.replace(
        reference, features=stripped(reference.features), outputs=stripped(reference.outputs)
    )


def test_a_day_that_was_not_trained_on_is_a_day_like_others(flights: Flights) -> None:
    """Each held-out day by itself, as the default window sees it; two of a hundred may drift, not nine of ten."""
    now_found: Counter[str] = Counter()
    plainly: Counter[str] = Counter()
    for day, table in flights.held_out.groupby("day"):
        observation = flights.observe_day(table)
        found = flights.look_at(observation, flights.reference)
        now_found[found.status] += 1
        plainly[flights.look_at(observation, without_usual(flights.reference)).status] += 1
        if found.status == "drifted":
            assert str(day).startswith("2013-06-07"), "the tropical storm, the worst weather of all days"
    days = flights.held_out["day"].nunique()
    assert now_found["drifted"] <= 0.02 * days
    assert now_found["shifting"] <= 0.05 * days
    assert plainly["drifted"] > 0.9 * days


@pytest.mark.parametrize(
    ("day", "status"),
    [
        ("2013-02-11", "shifting"),  # a winter storm
        ("2013-06-07", "drifted"),  # a tropical storm
    ],
)
def test_the_worst_weather_of_the_year_stands_out(flights: Flights, day: str, status: str) -> None:
    found = flights.look(flights.rows(flights.all[flights.all["day"] == day]))
    assert found.status == status
    assert statuses(found, "drifted", "shifting") == {"weather_delay", "probability", "prediction"}


def test_what_is_usual_is_said(flights: Flights) -> None:
    found = flights.look(flights.rows(flights.held_out[flights.held_out["day"] == "2013-11-17"]))
    weather = next(field for field in found.windows[0].fields if field.name == "weather_delay")
    assert weather.psi is not None
    assert weather.psi > 5
    assert weather.usual_psi == flights.reference.features["weather_delay"].usual_psi
    assert weather.status == "stable"
    assert weather.reasons == [
        f"PSI {weather.psi:.2f} is usual: single days of the training data have up to {weather.usual_psi:.2f}."
    ]


@pytest.mark.parametrize(
    ("trained_on", "asked_of", "status"),
    [([6, 7, 8], 12, "shifting"), ([12, 1, 2], 6, "shifting"), ([12, 1, 2], 9, "drifted")],
)
def test_one_season_is_not_what_a_model_of_another_was_trained_on(
    flights: Flights, trained_on: list[int], asked_of: int, status: str
) -> None:
    """The reference is made of one season, the way `foretell models reference` makes it."""
    season = flights.all[flights.all["month"].isin(trained_on)]
    rows = flights.rows(season.sample(40_000, random_state=1))
    reference, left_out = describe(rows, flights.answers(rows))
    assert left_out == []
    # It has no days: the plain thresholds hold, as in a window of four weeks.
    again = flights.look_with(reference, season.sample(5000, random_state=2))
    assert again.status == "stable"
    other = flights.look_with(reference, flights.all[flights.all["month"] == asked_of])
    assert other.status == status
    assert "weather_delay" in statuses(other, status)
    assert statuses(other, "shifting", "drifted") <= {"weather_delay", "probability"}


def kilometres(row: Row) -> Row:
    return {**row, "distance": min(row["distance"] * 1.609, 5000.0)}


def no_weather(row: Row) -> Row:
    return {**row, "weather_delay": 0.0}


def always_noon(row: Row) -> Row:
    return {**row, "dep_hour": 12}


def other_clock(row: Row) -> Row:
    """Hours in UTC: four or five later."""
    return {**row, "dep_hour": (row["dep_hour"] + 5) % 24}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (kilometres, "distance"),
        (always_noon, "dep_hour"),
        (other_clock, "dep_hour"),
        (lambda row: {**row, "carrier": "UA"}, "carrier"),
    ],
)
@pytest.mark.parametrize("size", [500, 5000])
def test_a_broken_feed_drifts(flights: Flights, size: int, change: Change, field: str) -> None:
    rows = flights.rows(flights.held_out.sample(size, random_state=3))
    assert flights.look(rows).status == "stable"
    found = flights.look([change(row) for row in rows])
    assert found.status == "drifted"
    assert field in statuses(found, "drifted")
    others = {"carrier", "dep_hour", "distance", "weather_delay"} - {field}
    assert statuses(found, "drifted", "shifting") & others == set()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (kilometres, "distance"),
        (always_noon, "dep_hour"),
        (other_clock, "dep_hour"),
        (lambda row: {**row, "carrier": "UA"}, "carrier"),
    ],
)
def test_a_broken_feed_drifts_on_every_single_day(flights: Flights, change: Change, field: str) -> None:
    for _, table in flights.held_out.groupby("day"):
        found = flights.look([change(row) for row in flights.rows(table)])
        assert field in statuses(found, "drifted")


def test_weather_that_is_always_0_is_told_by_a_fortnight_but_not_by_a_day(flights: Flights) -> None:
    """There are days without a cloud, and no fortnights."""
    days = sorted(flights.held_out["day"].unique())
    for length, status in [(1, "stable"), (14, "drifted")]:
        table = flights.held_out[flights.held_out["day"].isin(days[:length])]
        found = flights.look_over_days(table, no_weather)
        assert "weather_delay" in statuses(found, status)


@pytest.mark.parametrize("length", [7, 14, 28])
def test_longer_windows_do_not_drift(flights: Flights, length: int) -> None:
    """Of those that lie one after another through the year, days of training among them: one week at most."""
    days = sorted(flights.all["day"].unique())
    found: Counter[str] = Counter()
    for start in range(0, len(days) - length + 1, length):
        table = flights.all[flights.all["day"].isin(days[start : start + length])]
        status = flights.look_over_days(table).status
        found[status] += 1
    assert found["drifted"] <= (length == 7)


def test_one_carrier_s_flights_alone_drift(flights: Flights) -> None:
    table = flights.held_out[flights.held_out["carrier"] == "AA"].sample(2000, random_state=1)
    found = flights.look(flights.rows(table))
    assert {"carrier", "distance"} <= statuses(found, "drifted")
    assert "weather_delay" not in statuses(found, "drifted", "shifting")


def test_one_carrier_s_flights_of_a_single_day_alone_drift(flights: Flights) -> None:
    """Asked again and again: no carrier has rows enough in a day."""
    for _, table in flights.held_out.groupby("day"):
        alone = table[table["carrier"] == "AA"].sample(600, replace=True, random_state=1)
        found = flights.look(flights.rows(alone))
        assert {"carrier", "distance"} <= statuses(found, "drifted")
