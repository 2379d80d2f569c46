"""Quality measures of a model for users, from its report.

The training program writes `report.json` beside the manifest. Its numbers on held-out data are under `hold_out` (or
`test`, `quality`, or at the top level); those that are listed here are shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from foretell.inference.package import ModelPackage
from foretell.inference.small_files import Unfit, read_small

FILE = "report.json"
_MOST_BYTES = 1024 * 1024
_PLACES = ("hold_out", "test", "quality")


@dataclass(frozen=True, slots=True)
class Measure:
    """The meaning of a number in a report."""

    title: Mapping[str, str]
    meaning: Mapping[str, str]
    better: Literal["higher", "lower"] | None


@dataclass(frozen=True, slots=True)
class Quality:
    """One measure of a model, with its value."""

    name: str
    value: float
    measure: Measure


def _measure(better: Literal["higher", "lower"], en: tuple[str, str], ru: tuple[str, str]) -> Measure:
    return Measure({"en": en[0], "ru": ru[0]}, {"en": en[1], "ru": ru[1]}, better)


#: By their names in reports, the most important first.
_MEASURES = {
    "accuracy": _measure(
        "higher",
        ("Accuracy", "The share of answers that are right."),
        ("Точность", "Доля верных ответов."),
    ),
    "balanced_accuracy": _measure(
        "higher",
        ("Balanced accuracy", "The share of right answers, averaged over the classes, so that rare ones count alike."),
        ("Сбалансированная точность", "Доля верных ответов, усреднённая по классам: редкие весят столько же."),
    ),
    "auc": _measure(
        "higher",
        (
            "AUC",
            "How often a case of the class gets a higher probability than another: 0.5 is chance, 1 always.",
        ),
        ("AUC", "Как часто случай из класса получает вероятность выше, чем не из него: 0,5 наугад, 1 всегда."),
    ),
    "macro_f1": _measure(
        "higher",
        ("F1, macro", "Precision and recall in one number, averaged over the classes; 1 is the best."),
        ("F1, макро", "Точность и полнота одним числом, в среднем по классам; лучшее значение 1."),
    ),
    "f1": _measure(
        "higher",
        ("F1", "Precision and recall in one number; 1 is the best."),
        ("F1", "Точность и полнота одним числом; лучшее значение 1."),
    ),
    "precision": _measure(
        "higher",
        ("Precision", "How many of those it names are of the class."),
        ("Точность (precision)", "Какая доля названных действительно из класса."),
    ),
    "recall": _measure(
        "higher",
        ("Recall", "How many of the class it names."),
        ("Полнота (recall)", "Какую долю класса модель называет."),
    ),
    "r2": _measure(
        "higher",
        ("R²", "The share of the variance that it explains; 1 is the best."),
        ("R²", "Доля объяснённой дисперсии; лучшее значение 1."),
    ),
    "mae": _measure(
        "lower",
        ("Mean absolute error", "How far the answers are off, on average, in the unit of the answer."),
        ("Средняя абсолютная ошибка", "На сколько ответы в среднем расходятся с истиной, в единицах ответа."),
    ),
    "rmse": _measure(
        "lower",
        ("Root mean squared error", "How far the answers are off; large errors count more."),
        ("Среднеквадратичная ошибка", "На сколько ответы расходятся с истиной; большие ошибки весят больше."),
    ),
    "ece": _measure(
        "lower",
        ("Calibration error", "How far probabilities are from what then happens, on average; 0 is the best."),
        ("Ошибка калибровки", "На сколько вероятности в среднем расходятся с тем, что бывает; лучшее значение 0."),
    ),
    "brier": _measure(
        "lower",
        ("Brier score", "The mean squared error of the probabilities; 0 is the best."),
        ("Оценка Брайера", "Средний квадрат ошибки вероятностей; лучшее значение 0."),
    ),
    "log_loss": _measure(
        "lower",
        ("Log loss", "How much the truth surprises the probabilities; 0 is the best."),
        ("Логарифмические потери", "Насколько истина неожиданна для вероятностей; лучшее значение 0."),
    ),
}


def quality_of(package: ModelPackage) -> list[Quality]:
    """The measures in the report of a package; empty without a readable report."""
    file = package.path / FILE
    try:
        found = file.stat()
    except OSError:
        return []
    return _read(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=256)
def _read(file: Path, _changed_ns: int, _size: int) -> list[Quality]:
    try:
        report = msgspec.json.decode(read_small(file, most_bytes=_MOST_BYTES))
    except (OSError, Unfit, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The report is only for information; the model works without it.
        return []
    numbers = _numbers(report)
    return [Quality(name, numbers[name], measure) for name, measure in _MEASURES.items() if name in numbers]


def _numbers(report: Any) -> dict[str, float]:
    if not isinstance(report, dict):
        return {}
    places = [report[place] for place in _PLACES if isinstance(report.get(place), dict)]
    return {
        name: float(value)
        for name, value in (places[0] if places else report).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name in _MEASURES
    }
