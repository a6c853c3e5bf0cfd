"""How often a random map gives each Boolean function: samples in blocks, counted by distinct functions.

Sample number i belongs to block i // block_size. Every block has a random stream of its own, which is determined by the
seed and the block's number. The counts therefore depend on the map, the number of samples, the seed and the block size,
and neither on the number of threads or processes nor on how the blocks are distributed among them.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from zoo.errors import ZooError
from zoo.functions.keys import Keys, check_n_inputs, keys_from_tables
from zoo.functions.maps import ParameterFunctionMap

BLOCK = 8192


@dataclass(frozen=True)
class Counts:
    """Numbers of samples of each function that was met.

    Args:
        keys: Keys (F, words) of the distinct functions, sorted by the first word, then by the second, and so on.
        counts: Number of samples (F,) of each function, int64.
        n_samples: Number of all samples, the sum of the counts.
        ties: Number of pairs of a sample and an input at which the output was exactly 0.
    """

    keys: Keys
    counts: npt.NDArray[np.int64]
    n_samples: int
    ties: int

    def __len__(self) -> int:
        """Return the number of distinct functions."""
        return len(self.keys)


def merge(parts: Iterable[Counts]) -> Counts:
    """Return the counts of all samples of several counts. The order of the parts does not matter.

    Raises:
        ZooError: If there are no parts, or their keys have different numbers of words.
    """
    parts = list(parts)
    if len({part.keys.shape[1] for part in parts}) != 1:
        raise ZooError("counts to be merged must be at least one, and of the same number of inputs")
    keys, counts = _added(np.concatenate([p.keys for p in parts]), np.concatenate([p.counts for p in parts]))
    return Counts(keys, counts, sum(p.n_samples for p in parts), sum(p.ties for p in parts))


def _added(keys: Keys, counts: npt.NDArray[np.int64]) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return sorted distinct keys and the sum of the counts of each."""
    order = np.lexsort(keys.T[::-1])
    keys = keys[order]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(1)])
    return keys[starts], np.add.reduceat(counts[order], starts)


def sample_counts(
    map: ParameterFunctionMap,
    n_samples: int,
    seed: int = 0,
    blocks: range | None = None,
    block_size: int = BLOCK,
    at_zero: int = 0,
    device: str | torch.device = "cpu",
) -> Counts:
    """Sample functions of a map and count them.

    Args:
        map: The random map.
        n_samples: Number of samples N of the whole experiment.
        seed: Seed of the whole experiment, 0 or more.
        blocks: Which of the ceil(N / block_size) blocks to sample; by default all. Counts of disjoint ranges that cover
            all blocks merge into exactly the counts of the whole.
        block_size: Number of samples of a block. The last block is smaller unless this divides N. Samples depend on it.
        at_zero: Value of a function where the output is exactly 0: 0 means f(x) = [output > 0], 1 means
            f(x) = [output >= 0].
        device: Where `map.sample` computes. On a CPU, maps of the zoo run compiled code in as many threads as torch
            uses. On a GPU their samples are others, because its random numbers are, and just as reproducible.

    Returns:
        The counts of the samples of these blocks.

    Raises:
        ZooError: For a map with more than 8 inputs, no samples, no blocks or blocks that do not exist, a block size
            below 1, a negative seed, `at_zero` other than 0 and 1, or a map that returns another shape than (size, 2^n).
    """
    _check(map, n_samples, seed, block_size, at_zero)
    n_blocks = -(-n_samples // block_size)
    blocks = range(n_blocks) if blocks is None else blocks
    if not blocks or min(blocks) < 0 or max(blocks) >= n_blocks:
        raise ZooError(f"blocks are {blocks}; {n_samples:,} samples have the blocks 0 to {n_blocks - 1:,}")

    def sample(block: int) -> Counts:
        size = min(block_size, n_samples - block * block_size)
        keys, ties = _block_keys(map, size, seed, block, at_zero, torch.device(device))
        keys, counts = _added(keys, np.ones(size, dtype=np.int64))
        return Counts(keys, counts, size, ties)

    threads = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    merged: list[Counts] = []  # each at least twice as large as the next
    for first in range(0, len(blocks), threads):
        with ThreadPoolExecutor(threads) as pool:
            for part in pool.map(sample, blocks[first : first + threads]):
                while merged and len(merged[-1]) < 2 * len(part):
                    part = merge([merged.pop(), part])
                merged.append(part)
    return merge(merged)


def _check(map: ParameterFunctionMap, n_samples: int, seed: int, block_size: int, at_zero: int) -> None:
    check_n_inputs(map.n_inputs)
    for name, value, least in (("n_samples", n_samples, 1), ("block_size", block_size, 1), ("seed", seed, 0)):
        if value < least:
            raise ZooError(f"{name} is {value}; it must be at least {least}")
    if at_zero not in (0, 1):
        raise ZooError(f"at_zero is {at_zero}; it must be 0 (output > 0) or 1 (output >= 0)")


def _block_keys(
    map: ParameterFunctionMap, size: int, seed: int, block: int, at_zero: int, device: torch.device
) -> tuple[Keys, int]:
    """Return the keys (size, words) of the samples of a block, and the number of outputs that are exactly 0."""
    generator = torch.Generator(device).manual_seed(int(np.random.SeedSequence((seed, block)).generate_state(1)[0]))
    outputs = map.sample(size, generator)
    if outputs.shape != (size, 2**map.n_inputs):
        raise ZooError(
            f"{map.name} returned outputs of the shape {tuple(outputs.shape)}; it must be {(size, 2**map.n_inputs)}"
        )
    if outputs.dtype == torch.bool:
        return keys_from_tables(outputs.cpu().numpy()), 0
    tables = outputs >= 0 if at_zero else outputs > 0
    return keys_from_tables(tables.cpu().numpy()), int((outputs == 0).sum())
