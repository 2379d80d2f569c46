"""How long a session of a browser lasts. Imported by settings, so without the database (`foretell up`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A session ends after `idle_s` without use, and after `whole_s` in any case."""

    idle_s: float = 14 * 86_400.0
    whole_s: float = 90 * 86_400.0
