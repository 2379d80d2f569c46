"""Returns freed memory to the system. Only needed for glibc; elsewhere it does nothing.

At first glibc allocates large blocks from the system and returns them. After some of them, it allocates blocks of up to
32 MiB from its heap, which shrinks only at its end. So after a few large requests a process would stay at twice its
size.
"""

import ctypes
from contextlib import suppress

#: M_MMAP_THRESHOLD, and the size from which a block is large.
_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES = -3, 128 * 1024


def have_large_blocks_given_back() -> None:
    """From now on, large blocks are returned to the system as soon as they are freed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def give_back() -> None:
    """Return free memory between smaller blocks, too. Takes some milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
