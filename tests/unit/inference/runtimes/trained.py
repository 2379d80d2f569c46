"""Small models to store and serve, trained in a moment."""

from typing import Any

import numpy
import pandas
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

FLOWERS = pandas.DataFrame(
    {"petal length (cm)": [1.4, 1.3, 4.7, 4.5, 6.0, 5.1], "petal width": [0.2, 0.2, 1.4, 1.5, 2.5, 1.9]}
)
KINDS = ["setosa", "setosa", "versicolor", "versicolor", "virginica", "virginica"]
FLIGHTS = pandas.DataFrame({"carrier": ["AA", "UA", "AA", "DL"] * 5, "hour": range(20)})
TEXTS = ["good", "very good", "bad", "very bad"]


def flowers() -> Any:
    """Three classes from named columns of numbers."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FLOWERS, KINDS)


def flights() -> Any:
    """Two classes from a text and a number, picked by name."""
    columns = make_column_transformer((OneHotEncoder(), ["carrier"]), remainder="passthrough")
    return make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(FLIGHTS, [0, 1, 0, 1] * 5)


def line() -> Any:
    """A number from a matrix without names."""
    return LinearRegression().fit(numpy.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]), [1.0, 2.0, 6.0])


def tree() -> Any:
    """A decision tree, which skops does not trust by itself."""
    return DecisionTreeClassifier().fit(FLOWERS, KINDS)


def texts() -> Any:
    """Two classes from a text."""
    return make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, [1, 1, 0, 0])
