"""Random numbers that no model can set.

A model is code of its owner's in one process with ours, and many a one begins with `random.seed(0)`. Python's own
generator is everybody's; if we drew from it, our identifiers would come again and all traffic would go to one version.
"""

import os
from random import Random

#: The generator of this process, for what must be spread or differ. What must be secret comes from `secrets`.
RANDOM = Random()  # noqa: S311

# Two processes forked from one would otherwise draw the same numbers.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RANDOM.seed)
