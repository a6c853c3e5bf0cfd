import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from zoo.functions.keys import inputs, keys_from_tables, tables_from_keys
from zoo.functions.maps import (
    ACTIVATIONS,
    MLP,
    BooleanMachine,
    LinearThreshold,
    Polynomial,
    RandomFourier,
    RandomTable,
)
from zoo.functions.sampling import sample_counts
from zoo.functions.streams import LANES, fill_normals, new_stream

REFERENCE = {  # in float64
    "relu": lambda h: np.maximum(h, 0),
    "tanh": np.tanh,
    "sigmoid": lambda h: 1 / (1 + np.exp(-h)),
    "sine": np.sin,
    "sign": lambda h: np.where(h > 0, 1, -1),
    "identity": lambda h: h,
}


def first_normals(size, n_parameters):
    """The parameters (size, n_parameters), before they are scaled, of the first functions of block 0, seed 0."""
    n = -(-size * n_parameters // (2 * LANES)) * 2 * LANES
    normals = np.empty(n, np.float32)
    fill_normals(new_stream(0, 0), np.empty(2 * LANES, np.uint32), normals)
    return normals[: size * n_parameters].reshape(size, n_parameters).astype(np.float64)


def coded(n, coding):
    x = inputs(n).astype(float)
    return x if coding == "bits" else 2 * x - 1


def network_outputs(net, parameters):
    """Outputs (2^n,) and the sum of the sizes of the last layer's terms (2^n,)."""
    h = coded(net.n_inputs, net.coding).T
    for layer, (n_out, fan_in) in enumerate(net.shapes):
        if layer:
            h = REFERENCE[net.activation](h)
        W, parameters = np.split(parameters, [n_out * fan_in])
        W = W.reshape(n_out, fan_in) * net.sigma_w / np.sqrt(fan_in)
        b = np.zeros((n_out, 1))
        if net.sigma_b:
            b, parameters = np.split(parameters, [n_out])
            b = b[:, None] * net.sigma_b
        terms = abs(W) @ abs(h) + abs(b)
        h = W @ h + b
    assert not parameters.size
    return h[0], terms[0]


def assert_same_functions(map, outputs, terms, rounding=2e-5):
    """The compiled functions are those of outputs (size, 2^n), where rounding in float32 cannot change the sign."""
    keys, _ = map.fast_keys(len(outputs), new_stream(0, 0), 0)
    found = tables_from_keys(keys, map.n_inputs)
    clear = np.abs(outputs) > rounding * terms
    assert clear[:, 1:].mean() > 0.995
    assert (found == (outputs > 0))[clear].all()
    assert 0.02 < found.mean() < 0.98


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("n", "widths", "coding", "sigma_w", "sigma_b"),
    [(7, (40, 40), "bits", 1.4, 0.5), (8, (9, 3, 5), "signs", 3.0, 1.0), (3, (17,), "bits", 1.0, 0.0)],
)
def test_compiled_networks_are_those_of_plain_arithmetic_in_float64(activation, n, widths, coding, sigma_w, sigma_b):
    net = MLP(n, widths, activation, sigma_w, sigma_b, coding)
    if activation == "sign":  # a rounded sum may change a sign in the middle of the network
        net = MLP(n, widths[:1], activation, sigma_w, sigma_b, coding)
    parameters = first_normals(2**15 // net.n_parameters, net.n_parameters)[:200]
    outputs, terms = map(np.array, zip(*(network_outputs(net, p) for p in parameters), strict=True))
    assert_same_functions(net, outputs, terms)


@pytest.mark.parametrize("coding", ["bits", "signs"])
def test_compiled_polynomials_are_sums_of_products_of_inputs(coding):
    map = Polynomial(5, 3, coding)
    monomials = [[], *([a] for a in range(5)), *([a, b] for a in range(5) for b in range(a + 1, 5))]
    monomials += [[a, b, c] for a in range(5) for b in range(a + 1, 5) for c in range(b + 1, 5)]
    assert map.n_parameters == len(monomials) == 1 + 5 + 10 + 10
    values = np.array([[np.prod([x[i] for i in m]) for m in monomials] for x in coded(5, coding)])
    coefficients = first_normals(500, len(monomials))
    assert_same_functions(map, coefficients @ values.T, abs(coefficients) @ abs(values).T)


def test_compiled_waves_are_sums_of_sines_and_cosines():
    map = RandomFourier(7, 30, 2.5, "signs")
    parameters = first_normals(2**15 // map.n_parameters, map.n_parameters)
    w, a, b = np.split(parameters, [30 * 7, 30 * 8], axis=1)
    phases = 2.5 * w.reshape(-1, 30, 7) @ coded(7, "signs").T
    outputs = np.einsum("sk,skx->sx", a, np.sin(phases)) + np.einsum("sk,skx->sx", b, np.cos(phases))
    assert_same_functions(map, outputs, np.abs([a, b]).sum((0, 2))[:, None])


MAPS = [
    *(MLP(2, (3,), activation, coding="signs") for activation in ACTIVATIONS),
    MLP(2, (2, 3), sigma_w=2.0, sigma_b=0.1),
    LinearThreshold(2),
    LinearThreshold(2, bias=False, coding="signs"),
    Polynomial(2, 2),
    Polynomial(2, 0),
    RandomFourier(2, 3, 1.0),
    BooleanMachine(2, 3, 2),
    RandomTable(2),
    RandomTable(1),
]


def frequencies(keys, n):
    return np.bincount(keys[:, 0].astype(np.int64), minlength=2**2**n)


@pytest.mark.parametrize("map", MAPS, ids=lambda map: map.name)
def test_compiled_code_and_torch_draw_from_the_same_distribution(map):
    size = 20_000
    outputs = map.sample(size, torch.Generator().manual_seed(0))
    assert outputs.shape == (size, 2**map.n_inputs)
    plain = keys_from_tables((outputs > 0).numpy())
    compiled, _ = map.fast_keys(size, new_stream(0, 0), 0)
    table = np.array([frequencies(keys, map.n_inputs) for keys in (plain, compiled)])
    assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3


@pytest.mark.parametrize("n_layers", [0, 1])
def test_boolean_machines_of_one_or_two_gates_have_the_probabilities_of_all_wires_and_kinds(n_layers):
    expected = np.zeros(16)
    for wires in itertools.product(inputs(2).T, repeat=2):
        for kind in range(16):
            gate = kind >> (2 * wires[0] + wires[1]) & 1
            # A second gate reads this one twice: its value at 00 and at 11 counts, two bits of its kind.
            for at_0, at_1 in itertools.product((0, 1), repeat=2) if n_layers else [(0, 1)]:
                table = np.where(gate, at_1, at_0)
                expected[(table << np.arange(4)).sum()] += 1 / (64 * (4 if n_layers else 1))
    size = 40_000
    keys, _ = BooleanMachine(2, 1, n_layers).fast_keys(size, new_stream(0, 0), 0)
    assert stats.chisquare(frequencies(keys, 2), size * expected).pvalue > 1e-3


def test_waves_are_nearly_constant_at_a_small_bandwidth_and_uniform_at_a_large_one():
    narrow = sample_counts(RandomFourier(3, 50, 0.001), 4000)
    constant = narrow.counts[np.isin(narrow.keys[:, 0], (0, 255))]
    assert constant.min() > 0.45 * 4000
    assert constant.sum() > 0.99 * 4000
    uniform = sample_counts(RandomFourier(3, 2000, 50.0), 2000)
    tables = tables_from_keys(uniform.keys, 3)
    ones = np.repeat(tables.sum(1), uniform.counts)
    observed = np.bincount(ones, minlength=9)
    assert stats.chisquare(observed, 2000 * stats.binom.pmf(range(9), 8, 0.5)).pvalue > 1e-3


def test_parameters_are_counted():
    assert MLP().n_parameters == 7 * 40 + 40 + 40 * 40 + 40 + 40 + 1
    assert MLP(sigma_b=0.0).n_parameters == 7 * 40 + 40 * 40 + 40
    assert (LinearThreshold().n_parameters, LinearThreshold(bias=False).n_parameters) == (8, 7)
    assert [Polynomial(7, d).n_parameters for d in range(8)] == [1, 8, 29, 64, 99, 120, 127, 128]
    assert RandomFourier(7, 10).n_parameters == 10 * 9
    assert BooleanMachine(7, 20, 5).n_parameters == 303
    assert RandomTable(4).n_parameters == 16


def test_settings_that_make_no_map_are_refused(refused):
    for make, message in (
        (lambda: MLP(0), "n_inputs is 0; it must be from 1 to 8"),
        (lambda: MLP(9), "n_inputs is 9"),
        (lambda: RandomTable(9), "n_inputs is 9"),
        (lambda: MLP(widths=(40, 0)), "a layer needs at least one neuron"),
        (lambda: MLP(activation="gelu"), "activation is 'gelu'; it must be one of relu, tanh"),
        (lambda: MLP(sigma_w=0.0), "sigma_w is 0.0; it must be positive"),
        (lambda: MLP(sigma_w=float("nan")), "sigma_w is nan; it must be positive"),
        (lambda: MLP(sigma_b=-1.0), "sigma_b is -1.0"),
        (lambda: LinearThreshold(coding="trits"), "coding is 'trits'; it must be 'bits'"),
        (lambda: Polynomial(3, 4), "degree is 4; it must be from 0 to the number of inputs, 3"),
        (lambda: RandomFourier(n_waves=0), "n_waves is 0"),
        (lambda: RandomFourier(bandwidth=0.0), "bandwidth is 0.0"),
        (lambda: BooleanMachine(width=0), "a layer needs at least one gate"),
        (lambda: BooleanMachine(n_layers=-1), "n_layers is -1"),
        (lambda: sample_counts(MLP(widths=(9,) * 60, sigma_w=1e3), 10), "too large for float32; choose smaller"),
    ):
        with refused(message):
            make()
