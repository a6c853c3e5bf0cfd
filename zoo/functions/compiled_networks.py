"""Boolean functions of random networks, compiled: Gaussian parameters are drawn and all inputs are evaluated.

A network is a list of layers W h + b with one output. Its first layer reads fixed features of the inputs. All sums run
over the inputs of a neuron in their order, with one rounding per product and sum, so that the result is the same on
every processor. The loops over the 2^n inputs are those that the processor vectorises.
"""

import math

import numpy as np
import numpy.typing as npt

from zoo.functions.keys import Keys
from zoo.functions.streams import LANES, LOG_2, Stream, compiled, cosine, fill_normals, fma, inlined, sine

RELU, TANH, SIGMOID, SINE, SIGN, IDENTITY, WAVES = range(7)
AT_ONCE = 2**15  # normal numbers that are drawn at a time; samples depend on it
HALF_PI = np.float32(np.pi / 2)
HALF_PI_REST = np.float32(np.pi / 2 - float(HALF_PI))
MOST = np.finfo(np.float32).max
Floats = npt.NDArray[np.float32]


@compiled
def network_keys(
    stream: Stream,
    size: int,
    features: Floats,
    shapes: npt.NDArray[np.int64],
    scales: Floats,
    sigma_b: np.float32,
    activation: int,
    at_zero: bool,
    n_words: int,
) -> tuple[Keys, int, int]:
    """Draw networks and return the keys (size, words) of their functions, the number of outputs that are 0,
    and the number of sums that are too large for float32.

    Parameters of one network are, layer by layer, the weights, row by row, and then the biases.

    Args:
        stream: State of the random numbers, which is advanced.
        size: Number of networks.
        features: Inputs (shapes[0, 1], 2^n) of the first layer.
        shapes: Numbers (layers, 2) of outputs and inputs of the layers; the last layer has one output.
        scales: Standard deviations (layers,) of the weights.
        sigma_b: Standard deviation of the biases; with 0 there are none.
        activation: What follows every layer but the last. `WAVES` gives the sines and then the cosines.
        at_zero: Value of the function where the output is exactly 0.
        n_words: Number of words of a key.
    """
    biased = sigma_b > 0
    n_parameters = (shapes[:, 0] * (shapes[:, 1] + biased)).sum()
    at_once = max(1, AT_ONCE // n_parameters)
    normals = np.empty(-(-at_once * n_parameters // (2 * LANES)) * 2 * LANES, np.float32)
    words = np.empty(2 * LANES, np.uint32)
    rows = max(1, shapes[:, 0].max() * (2 if activation == WAVES else 1))
    before, after = np.empty((rows, features.shape[1]), np.float32), np.empty((rows, features.shape[1]), np.float32)
    keys, ties, too_large = np.zeros((size, n_words), np.uint64), 0, 0
    for start in range(0, size, at_once):
        fill_normals(stream, words, normals)
        for number in range(min(at_once, size - start)):
            z = normals[number * n_parameters : (number + 1) * n_parameters]
            for layer in range(len(shapes)):
                n_out, fan_in = shapes[layer]
                h = features if layer == 0 else before
                weights = z[: n_out * fan_in]
                biases = z[n_out * fan_in : n_out * (fan_in + biased)]
                z = z[n_out * (fan_in + biased) :]
                for k in range(n_out):
                    out = after[k]
                    out[:] = biases[k] * sigma_b if biased else np.float32(0)
                    _add_products(out, weights[k * fan_in : (k + 1) * fan_in], scales[layer], h)
                too_large += _n_not_finite(after, n_out)
                if layer < len(shapes) - 1:
                    _activate(after, n_out, activation)
                before, after = after, before
            ties += _pack(before[0], at_zero, keys[start + number])
    return keys, ties, too_large


@compiled
def _add_products(out: Floats, weights: Floats, scale: np.float32, h: Floats) -> None:
    """Add scale * weights (fan_in,) times the rows of h (fan_in, 2^n) to out (2^n,), row after row."""
    fours = len(weights) // 4 * 4
    for j in range(0, fours, 4):
        a, b, c, d = weights[j] * scale, weights[j + 1] * scale, weights[j + 2] * scale, weights[j + 3] * scale
        ha, hb, hc, hd = h[j], h[j + 1], h[j + 2], h[j + 3]
        for i in range(len(out)):
            out[i] = fma(d, hd[i], fma(c, hc[i], fma(b, hb[i], fma(a, ha[i], out[i]))))
    for j in range(fours, len(weights)):
        a = weights[j] * scale
        ha = h[j]
        for i in range(len(out)):
            out[i] = fma(a, ha[i], out[i])


@compiled
def _n_not_finite(rows: Floats, n: int) -> int:
    """Return how many numbers of the first n rows are infinite or no numbers."""
    found = 0
    h = rows[:n].ravel()
    for i in range(len(h)):
        found += not abs(h[i]) <= MOST
    return found


@compiled
def _activate(rows: Floats, n: int, activation: int) -> None:
    """Apply the activation to the first n rows; `WAVES` also writes the n rows after these."""
    h = rows[:n].ravel()
    if activation == RELU:
        for i in range(len(h)):
            h[i] = h[i] if h[i] > 0 else np.float32(0)
    elif activation == TANH:
        for i in range(len(h)):
            e = _exp_of_negative(np.float32(-2) * abs(h[i]))
            t = (np.float32(1) - e) / (np.float32(1) + e)
            h[i] = t if h[i] > 0 else -t
    elif activation == SIGMOID:
        for i in range(len(h)):
            e = _exp_of_negative(-abs(h[i]))
            t = np.float32(1) / (np.float32(1) + e)
            h[i] = t if h[i] > 0 else np.float32(1) - t
    elif activation == SIGN:
        for i in range(len(h)):
            h[i] = np.float32(1) if h[i] > 0 else np.float32(-1)
    elif activation == SINE:
        for i in range(len(h)):
            h[i] = _sine_of_quarters(h[i], 0)
    elif activation == WAVES:
        cosines = rows[n : 2 * n].ravel()
        for i in range(len(h)):
            cosines[i] = _sine_of_quarters(h[i], 1)
        for i in range(len(h)):
            h[i] = _sine_of_quarters(h[i], 0)


@inlined
def _exp_of_negative(x: np.float32) -> np.float32:
    """Return exp(x) for x <= 0, which is taken to be at least -80."""
    x = max(x, np.float32(-80))
    whole = np.int32(x * np.float32(1 / math.log(2)) - np.float32(0.5))
    t = fma(np.float32(whole), -LOG_2, x)  # from -log(2) / 2 to log(2) / 2
    series = fma(t, fma(t, np.float32(1 / 5040), np.float32(1 / 720)), np.float32(1 / 120))
    series = fma(t, fma(t, fma(t, series, np.float32(1 / 24)), np.float32(1 / 6)), np.float32(0.5))
    return fma(t, fma(t, series, np.float32(1)), np.float32(1)) * np.int32((whole + 127) << 23).view(np.float32)


@inlined
def _sine_of_quarters(x: np.float32, quarters: int) -> np.float32:
    """Return the sine of x plus a number of quarter turns; x is taken to be between -1e6 and 1e6."""
    x = min(max(x, np.float32(-1e6)), np.float32(1e6))
    q = np.int32(x * np.float32(2 / math.pi) + (np.float32(0.5) if x > 0 else np.float32(-0.5)))
    t = fma(np.float32(q), -HALF_PI_REST, fma(np.float32(q), -HALF_PI, x))
    q = np.int32(q + quarters)
    s = cosine(t) if (q & 1) != 0 else sine(t)
    return -s if (q & 2) != 0 else s


@compiled
def _pack(out: Floats, at_zero: bool, key: npt.NDArray[np.uint64]) -> int:
    """Write the key (words,) of the function of outputs (2^n,), and return the number of outputs that are 0."""
    ties = 0
    for word in range(len(key)):
        part = out[64 * word : 64 * (word + 1)]
        bits = np.uint64(0)
        for i in range(len(part)):
            ties += part[i] == 0
            on = part[i] > 0 or (at_zero and part[i] == 0)
            bits |= np.uint64(on) << np.uint64(i)
        key[word] = bits
    return ties
