"""How often shadow versions gave the same answer as the version in use, and how far their numbers differed."""

from collections import defaultdict

from sqlalchemy.ext.asyncio import AsyncConnection

from foretell.contracts.reports.activity import ShadowAnswers, ShadowDifference, Shadows
from foretell.services.monitoring.reports.counting import count
from foretell.services.monitoring.reports.latency import numbers
from foretell.services.monitoring.reports.period import Period

_ANSWERS = "foretell_shadow_tasks_total"
_DIFFERENCE = "foretell_shadow_difference"


async def shadows(connection: AsyncConnection, period: Period) -> Shadows:
    """The workers' comparisons in the period."""
    counts = await count(connection, period)
    answers: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for (model, version, shadow, outcome), grown in counts.increases(
        _ANSWERS, "model", "version", "shadow", "outcome"
    ).items():
        answers[model, version, shadow][outcome] = round(grown)
    differences: dict[tuple[str, str, str], list[ShadowDifference]] = defaultdict(list)
    found = counts.histograms(_DIFFERENCE, "model", "version", "shadow", "field")
    for (model, version, shadow, field), histogram in sorted(found.items(), key=lambda each: each[0]):
        read = numbers(histogram)
        differences[model, version, shadow].append(
            ShadowDifference(
                field=field, count=read["count"], mean=read["mean_s"], p50=read["p50_s"], p95=read["p95_s"]
            )
        )
    return Shadows(
        **period.fields,
        items=[
            ShadowAnswers(
                model=key[0],
                version=key[1],
                shadow=key[2],
                same=outcomes.get("same", 0),
                different=outcomes.get("different", 0),
                failed=outcomes.get("failed", 0),
                differences=differences[key],
            )
            for key, outcomes in sorted(answers.items())
        ],
    )
