"""The merge of two sorted lists of keys with counts, compiled."""

import numpy as np
import numpy.typing as npt

from zoo.functions.keys import Keys
from zoo.functions.streams import compiled

Numbers = npt.NDArray[np.int64]


@compiled
def merged(keys_a: Keys, counts_a: Numbers, keys_b: Keys, counts_b: Numbers) -> tuple[Keys, Numbers]:
    """Return the sorted distinct keys of two lists (F, words), and the sum of the counts (F,) of each."""
    n_words = keys_a.shape[1]
    keys = np.empty((len(keys_a) + len(keys_b), n_words), np.uint64)
    counts = np.empty(len(keys), np.int64)
    a = b = n = 0
    while a < len(keys_a) or b < len(keys_b):
        order = 0  # -1 if the next key is that of a, 1 if it is that of b, 0 if it is both
        if a == len(keys_a) or b == len(keys_b):
            order = 1 if a == len(keys_a) else -1
        else:
            for word in range(n_words):
                if keys_a[a, word] != keys_b[b, word]:
                    order = -1 if keys_a[a, word] < keys_b[b, word] else 1
                    break
        counts[n] = 0
        if order <= 0:
            keys[n] = keys_a[a]
            counts[n] += counts_a[a]
            a += 1
        if order >= 0:
            keys[n] = keys_b[b]
            counts[n] += counts_b[b]
            b += 1
        n += 1
    return keys[:n].copy(), counts[:n].copy()
