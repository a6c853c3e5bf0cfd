"""Return of memory that is no longer used to the operating system."""

import ctypes
import gc
import sys


def free_memory() -> None:
    """Collect objects that refer to each other, and give unused memory back to the operating system.

    The C library of Linux keeps memory that was freed in parts. Elsewhere only the objects are collected.
    """
    gc.collect()
    if sys.platform == "linux":
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if give_back is not None:
            give_back(0)
