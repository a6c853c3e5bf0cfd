"""How often a random map gives each Boolean function: samples in blocks, counted by distinct functions.

Sample number i belongs to block i // block_size. Every block has a random stream of its own, which is determined by the
seed and the block's number. The counts therefore depend on the map, the number of samples, the seed and the block size,
and neither on the number of threads or processes nor on how the blocks are distributed among them.

The compiled code of the zoo's maps gives the same counts on every processor. A map that only has `sample` depends on
torch, whose products of matrices may round differently on another machine. A function then differs only where an output
is that close to 0.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from zoo.errors import ZooError
from zoo.functions.base import ParameterFunctionMap
from zoo.functions.counts import Counts, count, merge
from zoo.functions.keys import Keys, check_n_inputs, keys_from_tables

BLOCK = 8192  # samples


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
            below 1, a negative seed, `at_zero` other than 0 and 1, a GPU that is not there, or a map whose outputs
            have another shape than (size, 2^n) or are not numbers.
    """
    _check(map, n_samples, seed, block_size, at_zero, device)
    n_blocks = -(-n_samples // block_size)
    blocks = range(n_blocks) if blocks is None else blocks
    if not blocks or min(blocks) < 0 or max(blocks) >= n_blocks:
        raise ZooError(f"blocks are {blocks}; {n_samples:,} samples have the blocks 0 to {n_blocks - 1:,}")
    on = torch.device(device)

    def sample(block: int) -> Counts:
        size = min(block_size, n_samples - block * block_size)
        return count(*_block_keys(map, size, seed, block, at_zero, on))

    threads = torch.get_num_threads() if on.type == "cpu" else 1
    merged: list[Counts] = []  # each at least twice as large as the next
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(blocks), threads):  # so that few blocks wait to be merged
            for part in pool.map(sample, blocks[first : first + threads]):
                while merged and len(merged[-1]) < 2 * len(part):
                    part = merge([merged.pop(), part])
                merged.append(part)
    return merge(merged)


@dataclass(frozen=True)
class Flips:
    """How many functions another precision changes.

    Args:
        n_samples: Number of samples.
        functions: Number of samples whose function differs at one input or more.
        entries: Number of pairs of a sample and an input at which the functions differ.
        ties: Number of pairs at which the output in bfloat16 is exactly 0.
    """

    n_samples: int
    functions: int
    entries: int
    ties: int


def bf16_flips(
    map: ParameterFunctionMap,
    n_samples: int,
    seed: int = 0,
    block_size: int = BLOCK,
    at_zero: int = 0,
    device: str | torch.device = "cpu",
) -> Flips:
    """Sample the same parameters twice and compare the functions in float32 with those in bfloat16.

    The second time, `map.sample` runs under `torch.autocast`, as in training with the precision bf16-mixed: products of
    matrices read bfloat16 and return bfloat16. A map without products of matrices flips nothing.

    Args:
        map: The random map.
        n_samples: Number of samples.
        seed: Seed of the parameters, 0 or more.
        block_size: Number of samples that are computed at a time.
        at_zero: Value of a function where the output is exactly 0, as in `sample_counts`.
        device: Where `map.sample` computes.

    Raises:
        ZooError: As `sample_counts`.
    """
    _check(map, n_samples, seed, block_size, at_zero, device)
    on = torch.device(device)
    functions = entries = zeros = 0
    for block, start in enumerate(range(0, n_samples, block_size)):
        size = min(block_size, n_samples - start)
        exact, _ = _tables(map, size, _generator(seed, block, on), at_zero)
        with torch.autocast(on.type, torch.bfloat16):
            rounded, ties = _tables(map, size, _generator(seed, block, on), at_zero)
        differing = (exact != rounded).sum(1)
        functions, entries = functions + int((differing > 0).sum()), entries + int(differing.sum())
        zeros += ties
    return Flips(n_samples, functions, entries, zeros)


def _check(
    map: ParameterFunctionMap, n_samples: int, seed: int, block_size: int, at_zero: int, device: str | torch.device
) -> None:
    check_n_inputs(map.n_inputs)
    for name, value, least in (("n_samples", n_samples, 1), ("block_size", block_size, 1), ("seed", seed, 0)):
        if value < least:
            raise ZooError(f"{name} is {value}; it must be at least {least}")
    if at_zero not in (0, 1):
        raise ZooError(f"at_zero is {at_zero}; it must be 0 (output > 0) or 1 (output >= 0)")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ZooError(f"device is {device}; torch finds no GPU of this kind here")


def _block_keys(
    map: ParameterFunctionMap, size: int, seed: int, block: int, at_zero: int, device: torch.device
) -> tuple[Keys, int]:
    """Return the keys (size, words) of the samples of a block, and the number of outputs that are exactly 0."""
    if device.type == "cpu":
        from zoo.functions.streams import new_stream

        found = map.fast_keys(size, new_stream(seed, block), at_zero)
        if found is not None:
            return found
    tables, ties = _tables(map, size, _generator(seed, block, device), at_zero)
    return keys_from_tables(tables.cpu().numpy()), ties


def _generator(seed: int, block: int, device: torch.device) -> torch.Generator:
    """Return the random stream of a block."""
    state = np.random.SeedSequence((seed, block)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state))


def _tables(map: ParameterFunctionMap, size: int, generator: torch.Generator, at_zero: int) -> tuple[torch.Tensor, int]:
    """Return Boolean tables (size, 2^n) of the map's samples, and the number of outputs that are exactly 0."""
    outputs, shape = map.sample(size, generator), (size, 2**map.n_inputs)
    if outputs.shape != shape:
        raise ZooError(f"{map.name} returned outputs of the shape {tuple(outputs.shape)}; it must be {shape}")
    if outputs.dtype == torch.bool:
        return outputs, 0
    if outputs.isnan().any():
        raise ZooError(f"{map.name} returned outputs that are not numbers")
    return outputs >= 0 if at_zero else outputs > 0, int((outputs == 0).sum())
