"""Gives memory that is not needed any more back to the system. Only glibc has to be told; elsewhere nothing is done.

glibc takes large blocks from the system and gives them back, until it has seen some: from then on blocks of up to
32 MiB come from its heap, which shrinks only at its end. After a few large requests a process would stay at twice its
size.
"""

import ctypes
from contextlib import suppress

#: M_MMAP_THRESHOLD, and from what size on a block is large.
_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES = -3, 256 * 1024


def have_large_blocks_given_back() -> None:
    """From now on, large blocks go back to the system as soon as they are freed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def give_back() -> None:
    """Give what is free between smaller blocks back, too. Takes some milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
