"""When a failed delivery is retried, and when it is given up."""

from datetime import timedelta

from foretell.kit.randomness import RANDOM

#: Delays after the first failure, the second, and so on; the last one repeats.
_PAUSES_S = (5.0, 30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
#: The bot runs in the same installation and is expected back soon.
_LONGEST_FOR_BOT_S = 60.0
_LONGEST_ASKED_FOR_S = 3600.0
#: An event that has failed for this long is given up, so that the events after it are sent.
GIVEN_UP_AFTER = timedelta(days=1)
#: An endpoint without a successful delivery for this long is turned off.
TURNED_OFF_AFTER = timedelta(days=5)


def pause_s(failures: int, *, for_bot: bool, asked_for_s: float | None = None) -> float:
    """The delay after this many failures in a row, with a jitter of 20 %; at least `asked_for_s` (at most an hour)."""
    usual = _PAUSES_S[min(failures, len(_PAUSES_S)) - 1]
    if for_bot:
        usual = min(usual, _LONGEST_FOR_BOT_S)
    pause = usual * RANDOM.uniform(0.8, 1.2)
    return max(pause, min(asked_for_s or 0.0, _LONGEST_ASKED_FOR_S))
