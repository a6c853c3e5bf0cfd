import numpy as np
from scipy import stats

from zoo.functions.streams import LANES, fill_bits, fill_normals, new_stream


def drawn(n, seed=0, block=0):
    normals = np.empty(n, np.float32)
    fill_normals(new_stream(seed, block), np.empty(2 * LANES, np.uint32), normals)
    return normals


def rotated(x, k):
    return (x << k | x >> 32 - k) % 2**32


def xoshiro(state):
    """Words of xoshiro128++, from its definition, in Python's integers."""
    while True:
        a, b, c, d = state
        yield (rotated((a + d) % 2**32, 7) + a) % 2**32
        c ^= a
        d ^= b
        state = a ^ d, b ^ c, c ^ (b << 9) % 2**32, rotated(d, 11)


def test_bits_are_those_of_64_generators_side_by_side():
    state = new_stream(3, 5)
    words = np.empty(50 * LANES, np.uint32)
    lanes = [xoshiro(tuple(int(w) for w in state[:, lane])) for lane in range(LANES)]
    fill_bits(state, words)
    assert words.tolist() == [next(lane) for _ in range(50) for lane in lanes]


def test_streams_of_other_blocks_and_seeds_are_other_numbers():
    streams = [drawn(2**16, seed, block) for seed, block in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2**40))]
    largest = np.abs(np.corrcoef(streams) - np.eye(5)).max()
    assert largest < 4.5 / 2**8  # 4.5 standard deviations of a correlation of 2^16 pairs


def test_normal_numbers_have_the_moments_the_distribution_and_the_tails_of_n_0_1():
    n = 2**22
    z = drawn(n).astype(np.float64)
    assert (z != 0).all()
    powers = np.ones(n)
    for power in range(1, 9):  # E z^p is 0 or (p - 1)!!, and the variance of z^p is E z^2p - (E z^p)^2
        powers *= z
        moment, square = (stats.norm.moment(p) for p in (power, 2 * power))
        assert abs(powers.mean() - moment) < 4 * np.sqrt((square - moment**2) / n), power
    assert stats.kstest(z, "norm").pvalue > 0.01
    for bound in (2, 3, 4, 4.5):
        expected = n * stats.norm.sf(bound)
        for found in ((z > bound).sum(), (z < -bound).sum()):
            assert abs(found - expected) < 4 * np.sqrt(expected)


def test_normal_numbers_are_independent_of_each_other_and_of_their_squares():
    n = 2**22
    z = drawn(n).astype(np.float64)
    for values in (z, z**2 - 1, np.sign(z)):
        variance = (values**2).mean()
        for lag in (1, 2, LANES, 2 * LANES, 2001):  # LANES apart: the pairs of one transform
            correlation = (values[lag:] * values[:-lag]).mean() / variance
            assert abs(correlation) < 4.5 / np.sqrt(n), lag
