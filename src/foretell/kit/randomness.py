"""Random numbers that no model can influence.

Code of a model runs in the same process, and often calls `random.seed(0)`. With Python's global generator our
identifiers would then repeat, and all traffic would go to one version.
"""

import os
from random import Random

#: The generator of this process, for distribution and unique values. Secrets come from `secrets`.
RANDOM = Random()  # noqa: S311

# Otherwise two forks of one process would produce the same numbers.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RANDOM.seed)
