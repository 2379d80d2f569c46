"""How often something is tried again, and when it is given up."""

from datetime import timedelta

from foretell.kit.randomness import RANDOM

#: After the first failure, the second, and so on; then the last again and again.
_PAUSES_S = (5.0, 30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
#: The bot stands beside us, and is back soon.
_LONGEST_FOR_BOT_S = 60.0
_LONGEST_ASKED_FOR_S = 3600.0
#: An event that failed for so long is given up, so that those behind it get their turn.
GIVEN_UP_AFTER = timedelta(days=1)
#: An endpoint at which nothing succeeded for so long is turned off.
TURNED_OFF_AFTER = timedelta(days=5)


def pause_s(failures: int, *, for_bot: bool, asked_for_s: float | None = None) -> float:
    """How long to wait after so many failures in a row: a fifth more or less, not shorter than was asked for."""
    usual = _PAUSES_S[min(failures, len(_PAUSES_S)) - 1]
    if for_bot:
        usual = min(usual, _LONGEST_FOR_BOT_S)
    pause = usual * RANDOM.uniform(0.8, 1.2)
    return max(pause, min(asked_for_s or 0.0, _LONGEST_ASKED_FOR_S))
