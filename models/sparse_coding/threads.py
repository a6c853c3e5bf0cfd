"""Compiled functions over parts of the rows, in as many threads as torch has.

They release the interpreter's lock, so plain threads do; a pool of the compiler's own would not survive a fork.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import torch

compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


def over_rows(do: Callable[[slice], None], n_rows: int, at_once: int = 256) -> None:
    """Call a function for every range of rows; whoever is free takes the next."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(do, (slice(i, i + at_once) for i in range(0, n_rows, at_once))))
