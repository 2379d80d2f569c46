"""Statistical tests for two samples that are given as counts in the same bins.

Only the distribution functions are scipy's. `scipy.special` is imported at the first call, because the import takes a
fraction of a second and 20 MB.
"""

import numpy as np

from foretell.inference.stability import Counts


def psi_by_chance(bins: int, reference_rows: int, rows: int, chance: float) -> float:
    """The PSI that two samples of the same distribution exceed with probability `chance`.

    Then the PSI is (1/n + 1/m) times chi-squared with bins - 1 degrees of freedom (Yurdakul 2018).
    """
    from scipy.special import chdtri

    return float((1 / reference_rows + 1 / rows) * chdtri(bins - 1, chance))


def kolmogorov_smirnov(reference: Counts, seen: Counts) -> tuple[float, float]:
    """The largest distance of the cumulative shares, and its p-value.

    Bins hide differences inside them, and ties make large distances rarer, so the p-value is rather too large.
    """
    from scipy.special import kolmogorov

    n, m = float(reference.sum()), float(seen.sum())
    distance = float(np.abs(np.cumsum(reference) / n - np.cumsum(seen) / m).max())
    return distance, float(kolmogorov(distance * np.sqrt(n * m / (n + m))))


def chi_squared(reference: Counts, seen: Counts) -> tuple[float, float]:
    """Pearson's statistic for two samples, and its p-value."""
    from scipy.special import chdtrc

    together = reference + seen
    ratio = np.sqrt(float(seen.sum()) / float(reference.sum()))
    there = together > 0
    terms = (ratio * reference[there] - seen[there] / ratio) ** 2 / together[there]
    statistic = float(terms.sum())
    return statistic, float(chdtrc(int(there.sum()) - 1, statistic))


def at_least(count: int, rows: int, share: float) -> float:
    """The probability of `count` or more successes in `rows` trials, each with probability `share`."""
    from scipy.special import bdtrc

    return 1.0 if count == 0 else float(bdtrc(count - 1, rows, share))
