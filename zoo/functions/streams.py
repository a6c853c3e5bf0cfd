"""Random bits and normal numbers, compiled, and the same bit by bit on every processor.

The bits come from 64 generators xoshiro128++ that advance side by side (Blackman and Vigna 2021, Scrambled Linear
Pseudorandom Number Generators). Normal numbers are made from pairs of 32-bit words by the transform of Box and Muller
(1958). They do not exceed 6.67 in size, which 3e-11 of all normal numbers do, and are never exactly 0.

No operation depends on the processor: sums are in a fixed order, products and sums are fused only where the code says
so, and logarithm, sine, cosine and exponential are sums of series instead of calls of a library.
"""

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

LANES = 64  # generators of a stream
compiled = numba.njit(nogil=True, cache=True, error_model="numpy")  # IEEE arithmetic: no fastmath
inlined = numba.njit(inline="always", error_model="numpy")  # calls would keep loops from being vectorised
Stream = npt.NDArray[np.uint32]
TURN = np.float32(np.pi * 2.0**-33)  # from a 32-bit integer to radians between -pi / 4 and pi / 4
LOG_2 = np.float32(math.log(2))
ROOT_2 = np.float32(math.sqrt(2))


def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), code


fma: Any = intrinsic(_fma)  # a * b + c of numbers in float32, rounded once


def new_stream(seed: int, block: int) -> Stream:
    """Return the state (4, LANES) of the random stream of a block of samples.

    Args:
        seed: Seed of the experiment, 0 or more.
        block: Number of the block, 0 or more.
    """
    words = np.random.SeedSequence((seed, block)).generate_state(4 * LANES)
    return words.astype(np.uint32, copy=False).reshape(4, LANES)


@inlined
def log(x: np.float32) -> np.float32:
    """Return the natural logarithm of a positive normal number: exponent and atanh series of the rest."""
    bits = np.float32(x).view(np.int32)
    exponent = (bits >> 23) - 127
    m = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32)  # from 1 to 2
    large = m > ROOT_2
    m = np.float32(0.5) * m if large else m
    e = np.float32(np.int32(exponent + 1 if large else exponent))
    s = (m - np.float32(1)) / (m + np.float32(1))
    q = s * s
    series = fma(q, fma(q, fma(q, np.float32(1 / 9), np.float32(1 / 7)), np.float32(1 / 5)), np.float32(1 / 3))
    series = fma(q, series, np.float32(1))
    return fma(e, LOG_2, np.float32(2) * s * series)


@inlined
def sine(t: np.float32) -> np.float32:
    """Return the sine of an angle between -pi / 4 and pi / 4."""
    q = t * t
    series = fma(q, fma(q, np.float32(1 / 362880), np.float32(-1 / 5040)), np.float32(1 / 120))
    return fma(t * q, fma(q, series, np.float32(-1 / 6)), t)


@inlined
def cosine(t: np.float32) -> np.float32:
    """Return the cosine of an angle between -pi / 4 and pi / 4."""
    q = t * t
    series = fma(q, fma(q, np.float32(-1 / 3628800), np.float32(1 / 40320)), np.float32(-1 / 720))
    return fma(q, fma(q, fma(q, series, np.float32(1 / 24)), np.float32(-0.5)), np.float32(1))


@compiled
def fill_bits(stream: Stream, words: npt.NDArray[np.uint32]) -> None:
    """Fill words, whose number is a multiple of LANES, with random bits."""
    for start in range(0, len(words), LANES):
        out = words[start : start + LANES]
        for lane in range(LANES):
            a, b, c, d = stream[0, lane], stream[1, lane], stream[2, lane], stream[3, lane]
            s = np.uint32(a + d)
            out[lane] = np.uint32((s << 7) | (s >> 25)) + a
            c, d = np.uint32(c ^ a), np.uint32(d ^ b)
            stream[0, lane] = a ^ d
            stream[1, lane] = b ^ c
            stream[2, lane] = c ^ (b << 9)
            stream[3, lane] = (d << 11) | (d >> 21)


@compiled
def fill_normals(stream: Stream, words: npt.NDArray[np.uint32], normals: npt.NDArray[np.float32]) -> None:
    """Fill an array, whose length is a multiple of 2 LANES, with independent numbers from N(0, 1).

    Args:
        stream: State of the generators, which is advanced.
        words: Room for 2 LANES words.
        normals: Array to be filled.
    """
    for start in range(0, len(normals), 2 * LANES):
        fill_bits(stream, words)
        first, second = normals[start : start + LANES], normals[start + LANES : start + 2 * LANES]
        for lane in range(LANES):
            angle, radius = np.int32(words[lane]), words[LANES + lane]
            u = (np.float32(np.int32(radius >> 1)) + np.float32(0.5)) * np.float32(2.0**-31)
            u = min(u, np.float32(1 - 2.0**-24))
            r = math.sqrt(np.float32(-2) * log(u))
            t = (np.float32(np.int32(angle << 2)) + np.float32(2)) * TURN
            near, far = sine(t), cosine(t)
            far = -far if angle < 0 else far
            swapped = (angle & 0x40000000) != 0
            first[lane] = r * (near if swapped else far)
            second[lane] = r * (far if swapped else near)
