import itertools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from zoo.functions.base import ParameterFunctionMap
from zoo.functions.counts import count
from zoo.functions.keys import inputs, keys_from_tables, tables_from_keys, texts_from_tables
from zoo.functions.maps import MLP, BooleanMachine, LinearThreshold, Polynomial, RandomFourier, RandomTable
from zoo.functions.sampling import bf16_flips, merge, sample_counts

ROOT = Path(__file__).parents[2]


def same(a, b):
    return (
        np.array_equal(a.keys, b.keys)
        and np.array_equal(a.counts, b.counts)
        and (a.n_samples, a.ties) == (b.n_samples, b.ties)
    )


@pytest.fixture
def threads():
    """Sets the number of threads of torch, and undoes it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Perceptron(ParameterFunctionMap):  # a map of one's own
    n_inputs, n_parameters = 2, 2

    def sample(self, size, generator):
        x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float32)
        return torch.randn(size, 2, generator=generator) @ x.T


def integer_perceptrons(n, bias, largest):
    """Keys of the functions [w . x + b > 0] of all integers w and b up to a size, where no sum is 0 except at x = 0."""
    x = inputs(n).astype(int)
    x = np.hstack([x, np.ones((2**n, 1), int)]) if bias else x
    w = np.array(list(itertools.product(range(-largest, largest + 1), repeat=x.shape[1])))
    sums = w @ x.T
    clear = (sums if bias else sums[:, 1:]).all(1)
    return np.unique(keys_from_tables(sums[clear] > 0), axis=0)


@pytest.mark.parametrize(
    ("n", "bias", "n_functions", "largest"),
    [(2, 0, 6, 2), (3, 0, 32, 4), (4, 0, 370, 9), (2, 1, 14, 3), (3, 1, 104, 6)],
)
def test_perceptrons_realise_exactly_the_linearly_separable_functions(n, bias, n_functions, largest):
    known = integer_perceptrons(n, bias, largest)
    assert len(known) == n_functions
    met = sample_counts(LinearThreshold(n, bool(bias)), 100_000)
    assert np.array_equal(met.keys, known)
    assert met.ties == (0 if bias else 100_000)  # at the zero input, where the sum is empty


@pytest.mark.parametrize(
    "map", [LinearThreshold(2, False), MLP(2, (), sigma_b=0.0), Perceptron()], ids=lambda map: map.name
)
def test_two_weights_make_six_functions_whose_probabilities_are_angles(map):
    n = 400_000
    counts = sample_counts(map, n)
    found = dict(zip(texts_from_tables(tables_from_keys(counts.keys, 2)), counts.counts / n, strict=True))
    angles = {"0000": 1 / 4, "0111": 1 / 4, "0011": 1 / 8, "0101": 1 / 8, "0010": 1 / 8, "0100": 1 / 8}
    assert found.keys() == angles.keys()
    for text, p in angles.items():
        assert abs(found[text] - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_the_number_of_ones_of_a_perceptron_without_bias_is_uniform():
    n = 400_000
    counts = sample_counts(LinearThreshold(7, bias=False), n)
    ones = np.bincount(tables_from_keys(counts.keys, 7).sum(1), weights=counts.counts, minlength=128)
    assert len(ones) == 128
    assert ones.sum() == n
    assert stats.chisquare(ones).pvalue > 1e-3  # 127 degrees of freedom


def test_random_tables_meet_as_many_functions_as_throws_into_65536_boxes_fill():
    boxes, n = 2**16, 100_000
    empty = np.exp(-n / boxes)
    deviation = np.sqrt(boxes * empty * (1 - empty * (1 + n / boxes)))
    counts = sample_counts(RandomTable(4), n)
    assert abs(len(counts) - boxes * (1 - empty)) < 4 * deviation
    assert counts.counts.sum() == n


@pytest.mark.parametrize("n", [1, 2, 6, 7, 8])
def test_random_tables_are_fair_bits_at_every_input_and_nothing_else(n):
    size = 20_000
    counts = sample_counts(RandomTable(n), size)
    tables = np.repeat(tables_from_keys(counts.keys, n), counts.counts, axis=0)
    assert np.abs(tables.mean(0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(size)
    assert (keys_from_tables(tables) == np.repeat(counts.keys, counts.counts, axis=0)).all()


MAPS = [
    MLP(7, (5, 4)),
    LinearThreshold(2),
    Polynomial(8, 2),
    RandomFourier(6, 4),
    BooleanMachine(7, 5, 2),
    RandomTable(3),
    Perceptron(),
]


@pytest.mark.parametrize("map", MAPS, ids=lambda map: map.name)
def test_counts_do_not_depend_on_how_blocks_are_divided_or_done(map, threads):
    n, setting = 1_003, {"seed": 4, "block_size": 64}  # 16 blocks, of which the last has 43 samples
    threads(1)
    whole = sample_counts(map, n, **setting)
    assert whole.counts.sum() == whole.n_samples == n
    tasks = [sample_counts(map, n, blocks=blocks, **setting) for blocks in (range(7, 16), range(2), range(2, 7))]
    assert same(merge(tasks), whole)
    threads(8)
    assert same(sample_counts(map, n, **setting), whole)
    assert not same(sample_counts(map, n, seed=5, block_size=64), whole)


def _task(blocks):
    torch.set_num_threads(1)
    return sample_counts(MLP(7, (5,)), 2_000, seed=1, blocks=blocks, block_size=128)


PRINT_KEYS = """
from zoo.functions.maps import ACTIVATIONS, MLP, BooleanMachine, Polynomial, RandomFourier, RandomTable
from zoo.functions.sampling import sample_counts
others = Polynomial(7, 3), RandomFourier(7, 9), BooleanMachine(), RandomTable()
for map in (*(MLP(7, (13, 6), activation) for activation in ACTIVATIONS), *others):
    print(sample_counts(map, 5000).keys.tolist())
"""


@pytest.mark.slow
def test_a_processor_without_vectors_of_more_than_128_bits_and_without_fused_sums_counts_the_same(tmp_path):
    def printed(**processor):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "-".join(["cache", *processor])), **processor}
        command = [sys.executable, "-c", PRINT_KEYS]
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True).stdout

    assert printed() == printed(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")


def test_two_processes_count_what_one_counts():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(_task, [range(8), range(8, 16)])
    assert same(merge(parts), _task(range(16)))


@pytest.mark.parametrize("words", [1, 2, 4])
def test_merging_is_associative_commutative_and_counts_as_all_at_once(words):
    generator = np.random.default_rng(words)
    keys = generator.integers(0, 3, (900, words)).astype(np.uint64) << np.uint64(62)
    a, b, c = (count(part, ties) for part, ties in zip(np.split(keys, [100, 101]), (1, 2, 4), strict=True))
    whole = count(keys, 7)
    known, counts = np.unique(keys, axis=0, return_counts=True)
    assert np.array_equal(whole.keys, known)
    assert np.array_equal(whole.counts, counts)
    for merged in (merge([a, b, c]), merge([merge([a, b]), c]), merge([a, merge([b, c])]), merge([c, b, a])):
        assert same(merged, whole)


def test_a_tie_gives_the_value_that_is_asked_for():
    samples = {at_zero: sample_counts(LinearThreshold(3, False), 1000, at_zero=at_zero) for at_zero in (0, 1)}
    for at_zero, counts in samples.items():
        assert counts.ties == 1000
        tables = tables_from_keys(counts.keys, 3)
        assert (tables[:, 0] == at_zero).all()
    tables = [tables_from_keys(counts.keys, 3)[:, 1:].tolist() for counts in samples.values()]
    assert sorted(tables[0]) == sorted(tables[1])
    assert sample_counts(MLP(3, (4,), sigma_b=0.0), 100, at_zero=1).keys.min() % 2 == 1
    assert (tables_from_keys(sample_counts(Perceptron(), 100, at_zero=1).keys, 2)[:, 0] == 1).all()


def test_bfloat16_flips_only_sums_that_cancel():
    flips = bf16_flips(LinearThreshold(2, bias=False), 100_000)
    # Rounding keeps the sign of w_1 and of w_2; only their sum can change its sign or become 0.
    assert 0 < flips.functions == flips.entries
    w = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1))
    p = ((w.sum(1) > 0) != (w.bfloat16().float().sum(1).bfloat16() > 0)).double().mean().item()
    assert abs(flips.functions / 100_000 - p) < 4 * np.sqrt(2 * p / 100_000)
    assert flips.ties > 100_000  # those at the zero input, and sums that became 0
    for exact in (RandomTable(4), BooleanMachine(4)):
        assert bf16_flips(exact, 1000).functions == 0
    deep = bf16_flips(MLP(5, (10, 10)), 2000)
    assert 0 < deep.functions <= deep.entries < 0.05 * 2000 * 32


class Unfinished(ParameterFunctionMap):
    """A map that returns what it is given."""

    n_parameters = 1

    def __init__(self, n_inputs, outputs):
        self.n_inputs, self.outputs = n_inputs, outputs

    def sample(self, size, generator):
        return self.outputs


def test_what_cannot_be_sampled_is_refused(refused):
    for map, arguments, message in (
        (MLP(), {"n_samples": 0}, "n_samples is 0; it must be at least 1"),
        (MLP(), {"block_size": -1}, "block_size is -1; it must be at least 1"),
        (MLP(), {"seed": -1}, "seed is -1; it must be at least 0"),
        (MLP(), {"at_zero": 2}, "at_zero is 2; it must be 0"),
        (MLP(), {"blocks": range(1, 3)}, r"blocks are range\(1, 3\); 100 samples have the blocks 0 to 0"),
        (MLP(), {"blocks": range(0)}, "100 samples have the blocks"),
        (Unfinished(9, None), {}, "n_inputs is 9; it must be from 1 to 8"),
        (Unfinished(2, torch.zeros(100, 3)), {}, r"shape \(100, 3\); it must be \(100, 4\)"),
        (Unfinished(1, torch.full((100, 2), torch.nan)), {}, "outputs that are not numbers"),
    ):
        with refused(message):
            sample_counts(map, **{"n_samples": 100, **arguments})
    with refused("counts to be merged must be at least one"):
        merge([])
    with refused("as many inputs"):
        merge([sample_counts(RandomTable(6), 9), sample_counts(RandomTable(7), 9)])
