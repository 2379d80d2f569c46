# mypy: disable-error-code="import-not-found"
"""What one writes first: a pipeline of scikit-learn behind a FastAPI route with pydantic.

Its trees are as many and as large as those of the shipped model, which scikit-learn cannot load; it is trained at
start, on made-up flights, since only its speed counts here.
"""

from typing import Annotated, Any

import pandas
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

_CARRIERS = ("AA", "B6", "DL", "EV", "UA", "US", "WN")


class Flight(BaseModel):
    """Features of a flight."""

    carrier: Annotated[str, Field(min_length=2, max_length=2)]
    dep_hour: Annotated[int, Field(ge=0, le=23)]
    distance: Annotated[float, Field(gt=0, le=5000)]
    weather_delay: Annotated[float, Field(ge=0)]


def _train() -> Pipeline:
    numbers = range(5000)
    flights = pandas.DataFrame(
        {
            "carrier": [_CARRIERS[number % 7] for number in numbers],
            "dep_hour": [5 + number % 19 for number in numbers],
            "distance": [100.0 + number * 37 % 2400 for number in numbers],
            "weather_delay": [(0.0, 5.0, 15.0, 30.0)[number % 4] for number in numbers],
        }
    )
    late = [number * 7919 % 100 < 25 for number in numbers]
    columns = ColumnTransformer([("carrier", OneHotEncoder(sparse_output=False), ["carrier"])], remainder="passthrough")
    trees = HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=15, early_stopping=False)
    return make_pipeline(columns, trees).fit(flights, late)


model = _train()
app = FastAPI()


@app.post("/predict")
def predict(flight: Flight) -> dict[str, Any]:
    """Predict one flight."""
    probability = float(model.predict_proba(pandas.DataFrame([flight.model_dump()]))[0, 1])
    return {"prediction": int(probability >= 0.5), "probability": round(probability, 4)}
