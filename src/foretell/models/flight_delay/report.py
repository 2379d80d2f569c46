"""What the training found, in numbers (`report.json`), in words (`report.md`), and for drift (`reference.json`)."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from foretell.inference.reference import Field
from foretell.inference.stability import usual_psi
from foretell.kit import structs
from foretell.models.flight_delay.data import LATE_FROM_MIN, SOURCE, Flights

WEATHER_NAMES = {1: "clear", 2: "cloudy", 3: "rain", 4: "thunderstorm"}
BINS = 10


def quality(late: Any, probability: Any) -> dict[str, Any]:
    """AUC, Brier score (and that of always saying the base rate), and calibration of `probability` against `late`."""
    late = np.asarray(late, dtype=float)
    table = calibration(late, probability)
    ece = sum(row["flights"] * abs(row["predicted"] - row["observed"]) for row in table) / len(late)
    base = float(late.mean())
    return {
        "flights": len(late),
        "base_rate": _round(base),
        "auc": _round(roc_auc_score(late, probability)),
        "brier": _round(np.mean((probability - late) ** 2)),
        "brier_base": _round(base * (1 - base)),
        "ece": _round(ece),
        "calibration": table,
    }


def calibration(late: Any, probability: Any) -> list[dict[str, Any]]:
    """What was predicted and what happened, in bins of a tenth; empty bins are left out."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        inside = place == number
        if inside.any():
            rows.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "flights": int(inside.sum()),
                    "predicted": _round(probability[inside].mean()),
                    "observed": _round(late[inside].mean()),
                }
            )
    return rows


def by_group(table: pd.DataFrame, column: str, probability: Any) -> list[dict[str, Any]]:
    """Hold-out figures for each value of `column`; no AUC where a group has one outcome only."""
    rows = []
    for value, places in sorted(table.groupby(column).indices.items()):
        late, predicted = table["late"].to_numpy()[places].astype(float), probability[places]
        both = 0 < late.sum() < len(late)
        rows.append(
            {
                column: value if isinstance(value, str) else int(value),
                "flights": len(late),
                "late": _round(late.mean()),
                "predicted": _round(predicted.mean()),
                "auc": _round(roc_auc_score(late, predicted)) if both else None,
            }
        )
    return rows


def reference(training: pd.DataFrame, probability: Any) -> dict[str, Any]:
    """How the features and the predictions of the training flights are distributed, to compare live traffic with.

    And how far single days usually are from all of them: a day's weather is not the year's.
    """
    days = training["day"].tolist()

    def with_usual(field: dict[str, Any], values: Any) -> dict[str, Any]:
        known: Field = structs.convert(field, Field)
        return {**field, "usual_psi": usual_psi(known, np.asarray(values).tolist(), days)}

    def categories(values: Any) -> dict[str, Any]:
        names, counts = np.unique(values, return_counts=True)
        pairs = zip(names.tolist(), counts.tolist(), strict=True)
        return with_usual({"kind": "categorical", "counts": {str(name): count for name, count in pairs}}, values)

    def numbers(values: Any, edges: list[float]) -> dict[str, Any]:
        # The first and the last bin are open: live traffic may lie outside of what was trained on.
        inner = np.asarray(edges[1:-1])
        counts = np.bincount(np.searchsorted(inner, np.asarray(values), side="right"), minlength=len(edges) - 1)
        field = {
            "kind": "numeric",
            "edges": edges,
            "counts": counts.tolist(),
            "mean": _round(np.mean(values)),
            "std": _round(np.std(values)),
        }
        return with_usual(field, values)

    return {
        "model": "flight-delay",
        "rows": len(training),
        "features": {
            "carrier": categories(training["carrier"]),
            "dep_hour": numbers(training["dep_hour"], [float(hour) for hour in range(25)]),
            "distance": numbers(
                training["distance"], [0.0, 200.0, 300.0, 500.0, 700.0, 900.0, 1100.0, 1500.0, 2000.0, 2500.0, 5000.0]
            ),
            "weather_delay": numbers(training["weather_delay"], [0.0, 2.5, 10.0, 22.5, 60.0]),
        },
        "outputs": {
            "prediction": categories((probability.round(4) >= 0.5).astype(int)),
            "probability": numbers(probability, [round(0.05 * step, 2) for step in range(21)]),
        },
    }


def summary(flights: Flights) -> dict[str, Any]:
    """Where the data come from and how far they reach."""
    table = flights.table
    return {
        "source": SOURCE,
        "flights": flights.total,
        "used": len(table),
        "dropped": flights.dropped,
        "first_day": table["day"].min().date().isoformat(),
        "last_day": table["day"].max().date().isoformat(),
        "hours": [int(table["dep_hour"].min()), int(table["dep_hour"].max())],
        "distance_miles": [int(table["distance"].min()), int(table["distance"].max())],
        "carriers": int(table["carrier"].nunique()),
        "label": f"arrival delay of {LATE_FROM_MIN} minutes or more",
        "base_rate": _round(table["late"].mean()),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """`report.md`, from the numbers of `report.json`."""
    data, held_out, future = report["data"], report["hold_out"], report["time_split"]
    folds = report["cross_validation"]
    weather = [{"weather": WEATHER_NAMES[row["weather_code"]], **row} for row in report["by_weather"]]
    names = {
        "flights": "flights",
        "base_rate": "late",
        "auc": "AUC",
        "brier": "Brier",
        "brier_base": "Brier, base rate",
    }
    quality_rows = [
        {"figure": name, "hold-out by day": held_out[key], "by time": future[key], "all folds": folds[key]}
        for key, name in {**names, "ece": "expected calibration error"}.items()
    ]
    dropped = "\n".join(f"- {count:,} dropped: {reason}" for reason, count in data["dropped"].items())
    return f"""# Flight delay {report["version"]}

Made by `python -m foretell.models.flight_delay.train`; the same numbers stand in `report.json`.

**In short: AUC {folds["auc"]:.3f} on days the model has not seen** (five folds of days together; single folds from
{min(folds["auc_of_folds"]):.3f} to {max(folds["auc_of_folds"]):.3f}, the hold-out {held_out["auc"]:.3f}).
Airline, hour, distance and weather say a little about a delay, and only a little: AUC is about 0.69, and nothing better
is in these four fields (before this model was chosen, histogram boosting reached 0.695 and a logistic regression with
splines 0.687 on such a split). Read a probability as odds, not as a verdict.

## Data

Source: {data["source"]}.

- {data["flights"]:,} flights, {data["used"]:,} used
{dropped}
- {data["first_day"]} to {data["last_day"]}, {data["carriers"]} carriers
- scheduled departures from {data["hours"][0]} to {data["hours"][1]} h
- {data["distance_miles"][0]:,} to {data["distance_miles"][1]:,} miles
- label: {data["label"]}; {data["base_rate"]:.1%} of the flights used

## Limits

- Flights out of the three airports of New York in one year, 2013. Some of these airlines are gone; other airports and
  years differ.
- Cancelled and diverted flights have no arrival delay and are not in the data.
- Hours before {data["hours"][0]} and distances outside the range above are answered like the nearest ones seen.
- The weather code is a proxy made from rain, gusts, visibility and humidity (see `data.py`): the data have no sky and
  no thunder. It is the weather measured in the hour of departure; a forecast is less certain.
- `weather_delay` was only ever 0, 5, 15 or 30 minutes. Other values are answered like one of these: up to 10, however
  little above 0, like 5; up to 22.5 like 15; above like 30.
- Carriers are ordered by their punctuality in the training days; a carrier that is not in the data is refused.

## Quality on the hold-out

A fifth of the days, drawn by seed, and only days: flights of one day share its weather.

{_table(quality_rows, ["figure", "hold-out by day", "by time", "all folds"])}

*By time* is a model trained on January to October and tested on November and December. *All folds* is every day
predicted once by a model that has not seen it: five folds of days, the hold-out being the first. Some days are simply
worse than others: the training days of this model were late {report["training_base_rate"]:.1%} of the time, the
hold-out {held_out["base_rate"]:.1%}, so the calibration error of one fold is mostly that difference.

### Calibration

{_table(held_out["calibration"], ["from", "to", "flights", "predicted", "observed"])}

### By weather

{_table(weather, ["weather", "flights", "late", "predicted", "auc"])}

### By carrier

{_table(report["by_carrier"], ["carrier", "flights", "late", "predicted", "auc"])}

## Importance

Share of the total gain of the splits.

{_table([{"feature": name, "share": share} for name, share in report["importance"].items()], ["feature", "share"])}

## Checks that training must pass

- ONNX against LightGBM on the whole hold-out: at most {report["parity_limit"]:g} apart
- the probability never falls when `weather_delay` grows: checked on {report["monotone_profiles"]:,} profiles
- the schemas name exactly the carriers of the data
"""


def _table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return str(round(value, 4))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _round(value: Any) -> float:
    # Six places, so that the last bits of a float on another machine do not show.
    return round(float(value), 6)
