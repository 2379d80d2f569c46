"""From what a traveller knows to what the model takes. Also served as `/preprocess`."""

import re
from typing import Any

import structlog

from foretell.inference.package import InvalidField

log = structlog.get_logger(__name__)

#: Minutes of delay to expect from the weather: 1 clear, 2 cloudy, 3 rain, 4 thunderstorm.
WEATHER_DELAY_MIN = {1: 0, 2: 5, 3: 15, 4: 30}

_hour_and_minute = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]").fullmatch


def preprocess(rows: list[dict[str, Any]]) -> list[dict[str, Any] | InvalidField]:
    """Features for each row: `{"carrier", "dep_hour", "distance", "weather_delay"}`.

    A `departure_time` that is not HH:MM gives an `InvalidField` in the row's place. A weather code that is not known
    counts as clear, with a warning in the log.
    """
    features: list[dict[str, Any] | InvalidField] = []
    unknown_codes = 0
    for row in rows:
        departure_time = row["departure_time"]
        if not isinstance(departure_time, str) or _hour_and_minute(departure_time) is None:
            features.append(InvalidField("departure_time", "must be a time between 00:00 and 23:59, as HH:MM"))
            continue
        weather_delay = WEATHER_DELAY_MIN.get(row["weather_code"])
        if weather_delay is None:
            unknown_codes += 1
            weather_delay = 0
        features.append(
            {
                "carrier": row["carrier"],
                "dep_hour": int(departure_time[:2]),
                "distance": row["distance_miles"],
                "weather_delay": weather_delay,
            }
        )
    if unknown_codes:
        log.warning("weather_code_replaced", model="flight-delay", rows=unknown_codes, counted_as="clear")
    return features
