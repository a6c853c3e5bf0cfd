"""Compiled functions, and their parallel execution on ranges of rows in as many threads as torch uses.

Compiled functions release the interpreter's lock, so that Python threads suffice. The thread pool of numba would not
survive a fork.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import torch

compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


def over_rows(do: Callable[[slice], None], n_rows: int, at_once: int = 256) -> None:
    """Call a function for every range of `at_once` rows, in parallel; each free thread takes the next range."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(do, (slice(i, i + at_once) for i in range(0, n_rows, at_once))))
