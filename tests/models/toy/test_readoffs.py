import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import linprog
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.models.toy import readoffs
from zoo.models.toy.gaussian_signs import kappa
from zoo.models.toy.readoffs import (
    ExplicitReadoff,
    affine_readoff,
    all_pairs,
    explicit_readoff,
    least_squares_readoff,
    rms_error_of_00,
    sign_gate_readoff,
    truth_table,
)

GATES = ("and", "or", "xor")
INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(80)
M = 24


@pytest.fixture(autouse=True)
def _unsymmetric_gate(monkeypatch):
    """A gate that tells its first input from its second."""
    monkeypatch.setitem(readoffs.TRUTH_TABLES, "i_not_j", (0.0, 0.0, 1.0, 0.0))


def mean_relu(mean, sd):
    """E[ReLU(mean + sd g)]."""
    return mean * stats.norm.cdf(mean / sd) + sd * stats.norm.pdf(mean / sd) if sd > 0 else np.maximum(mean, 0)


def mean_output(readoff, n, x_i, x_j):
    """Mean over weights of what one neuron counts, by quadrature over the weights a and b of the pair, n inputs on."""
    larger, t = 5 * (NODES[:, None] + 1), (NODES + 1) / 2
    smaller, sd = larger * t, math.sqrt(n - x_i - x_j)
    density = stats.norm.pdf(larger) * stats.norm.pdf(smaller) * larger * 5 / 2 * np.outer(WEIGHTS, WEIGHTS)
    total = 0.0
    for a, b in ((larger, smaller), (smaller, larger)):
        for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            count = readoff.alpha * (s > 0) * (t > 0) + readoff.beta * (s > 0) + readoff.gamma * (t > 0) + readoff.delta
            total += count * (density * mean_relu(x_i * s * a + x_j * t * b, sd)).sum()
    return total


def numbers_on(active, on):
    """How many inputs are on beside a pair of which `on` are, and how likely."""
    if isinstance(active, FixedActive):
        return [(active.n_active, 1.0)]
    return [(on + k, stats.binom.pmf(k, M - 2, active.n_active / M)) for k in range(M - 1)]


def simulated(readoff, n_active, d, m=100, n_pairs=1500, n_vectors=50):
    """Outputs for pairs that are off."""
    torch.manual_seed(0)
    W = torch.randn(m, d)
    f = torch.from_numpy(FixedActive(n_active).draw(np.random.default_rng(0), n_vectors, m)).float()
    pairs = all_pairs(m)[:, torch.randperm(m * (m - 1) // 2)[:n_pairs]]
    y = F.relu(f @ W) @ readoff.weights(W, pairs)
    return y[f[:, pairs[0]] + f[:, pairs[1]] == 0]


def sample(n=600, m=6, d=9):
    """Neurons and features of 2 inputs on average, with few neurons."""
    torch.manual_seed(0)
    f = torch.from_numpy(BernoulliActive(2.0).draw(np.random.default_rng(0), n, m)).float()
    return F.relu(f.double() @ torch.randn(m, d).double() + torch.randn(d).double() / 2), f


def cases_of(f, pair):
    return (2 * f[:, pair[0]] + f[:, pair[1]]).long()


def best_affine(gate):
    """Largest error of the best affine map of two inputs, by linear programming."""
    t, ones = truth_table(gate).numpy(), np.ones((4, 1))
    design = np.hstack([INPUTS, ones])
    bound = np.vstack([np.hstack([design, -ones]), np.hstack([-design, -ones])])
    return linprog([0, 0, 0, 1], bound, np.concatenate([t, -t]), bounds=[(None, None)] * 4).fun


def test_and_of_two_inputs_is_half_their_sum_less_a_quarter_and_a_quarter_off_everywhere():
    assert affine_readoff("and") == (0.5, 0.5, -0.25, 0.25)


def test_of_xor_two_inputs_tell_nothing():
    assert affine_readoff("xor") == (0.0, 0.0, 0.5, 0.5)


@pytest.mark.parametrize("gate", [*GATES, "i_not_j"])
def test_the_affine_readoff_errs_as_much_in_every_case_and_no_affine_map_errs_less_at_worst(gate):
    *slopes, constant, error = affine_readoff(gate)
    off = np.abs(INPUTS @ slopes + constant - truth_table(gate).numpy())
    assert off.tolist() == pytest.approx([error] * 4)
    assert error == pytest.approx(best_affine(gate))


@pytest.mark.parametrize("n_active", [2, 4, 9])
def test_the_explicit_readoff_of_and_is_kappa_times_the_product_of_two_signs(n_active):
    alpha, beta, gamma, delta = explicit_readoff("and", FixedActive(n_active), 100)
    assert [beta / alpha, gamma / alpha, delta / alpha] == pytest.approx([-0.5, -0.5, 0.25])
    assert delta == pytest.approx(kappa(n_active).item())


@pytest.mark.parametrize("gate", [*GATES, "i_not_j"])
@pytest.mark.parametrize("active", [FixedActive(2), FixedActive(5), BernoulliActive(3.0)], ids=["2", "5", "Bernoulli"])
def test_the_explicit_readoff_is_right_on_average_in_each_of_the_four_cases(gate, active):
    readoff = explicit_readoff(gate, active, M)
    for (x_i, x_j), expected in zip(INPUTS.tolist(), truth_table(gate).tolist(), strict=True):
        found = sum(p * mean_output(readoff, n, x_i, x_j) for n, p in numbers_on(active, x_i + x_j))
        assert found == pytest.approx(expected, abs=1e-6)


def test_the_weights_of_a_readoff_count_positive_signs():
    readoff, W = ExplicitReadoff(8.0, 3.0, -2.0, 0.5), torch.randn(2, 5, 4)
    pairs = torch.tensor([[0, 3, 1], [2, 4, 0]])
    found = readoff.weights(W, pairs)
    assert found.shape == (2, 4, 3)
    for net in range(2):
        for k in range(4):
            for p, (i, j) in enumerate(pairs.T.tolist()):
                on_i, on_j = (W[net, x, k].item() > 0 for x in (i, j))
                expected = (8.0 * (on_i and on_j) + 3.0 * on_i - 2.0 * on_j + 0.5) / 4
                assert found[net, k, p].item() == pytest.approx(expected)


def test_a_readoff_by_signs_is_the_same_map_of_weights():
    readoff = ExplicitReadoff(8.0, 3.0, -2.0, 0.5)
    A, B, C, D = readoff.in_signs()
    for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        counted = 8.0 * (s > 0) * (t > 0) + 3.0 * (s > 0) - 2.0 * (t > 0) + 0.5
        assert A * s * t + B * s + C * t + D == pytest.approx(counted)


@pytest.mark.parametrize("d", [512, 2048, 8192])
def test_and_of_two_inputs_off_errs_by_kappa_over_the_root_of_the_width(d):
    readoff = explicit_readoff("and", FixedActive(2), 100)
    theory = rms_error_of_00(readoff, 2, d)
    assert theory == pytest.approx(kappa(2).item() / math.sqrt(d))
    assert simulated(readoff, 2, d).square().mean().sqrt().item() == pytest.approx(theory, rel=0.03)


@pytest.mark.parametrize("gate", ["or", "xor"])
def test_or_and_xor_of_two_inputs_off_err_as_theory_has_it(gate):
    readoff = explicit_readoff(gate, FixedActive(4), 100)
    found = simulated(readoff, 4, 1024)
    assert found.square().mean().sqrt().item() == pytest.approx(rms_error_of_00(readoff, 4, 1024), rel=0.03)


def test_the_error_of_a_readoff_that_is_not_zero_on_average_has_its_mean_too():
    readoff = ExplicitReadoff(8.0, 3.0, -2.0, 0.5)
    found = simulated(readoff, 3, 64, n_pairs=3000, n_vectors=400)
    assert found.square().mean().sqrt().item() == pytest.approx(rms_error_of_00(readoff, 3, 64), rel=0.05)
    assert found.mean().item() > 0.5 * rms_error_of_00(readoff, 3, 64)


@pytest.mark.parametrize("case_weights", [None, [0.25, 0.25, 0.25, 0.25], [0.1, 0.5, 0.0, 2.0]])
@pytest.mark.parametrize("gate", [*GATES, "i_not_j"])
def test_least_squares_of_every_pair_is_a_weighted_regression_of_its_own(gate, case_weights):
    (h, f), pairs, table = sample(), all_pairs(6), truth_table(gate)
    weights = None if case_weights is None else torch.tensor(case_weights)
    W_out, b_out = least_squares_readoff(h, f, pairs, table, weights)
    for p in range(pairs.shape[1]):
        case = cases_of(f, pairs[:, p])
        each = None if weights is None else (weights / torch.bincount(case, minlength=4))[case].numpy()
        fit = LinearRegression().fit(h.numpy(), table[case].numpy(), each)
        assert W_out[:, p].tolist() == pytest.approx(fit.coef_, abs=1e-6)
        assert b_out[p].item() == pytest.approx(fit.intercept_, abs=1e-6)


def test_a_part_of_the_pairs_in_any_order_gets_the_readoffs_it_has_among_all():
    (h, f), table, few = sample(), truth_table("xor"), torch.tensor([[4, 0, 2], [5, 3, 3]])
    W_all, b_all = least_squares_readoff(h, f, all_pairs(6), table)
    W_out, b_out = least_squares_readoff(h, f, few, table)
    places = [all_pairs(6).T.tolist().index(pair) for pair in few.T.tolist()]
    torch.testing.assert_close(W_out, W_all[:, places])
    torch.testing.assert_close(b_out, b_all[places])


@pytest.mark.parametrize("gate", GATES)
def test_an_unbiased_readoff_is_zero_and_one_on_average(gate):
    (h, f), pairs, table = sample(), all_pairs(6), truth_table(gate)
    W_out, b_out = least_squares_readoff(h, f, pairs, table, unbiased=True)
    y = h @ W_out + b_out
    for p in range(pairs.shape[1]):
        on = table[cases_of(f, pairs[:, p])] > 0
        assert [y[~on, p].mean().item(), y[on, p].mean().item()] == pytest.approx([0, 1], abs=1e-7)


def test_with_case_weights_the_weighted_means_are_zero_and_one():
    (h, f), pairs, table = sample(), all_pairs(6), truth_table("or")
    weights = torch.tensor([0.3, 0.1, 0.2, 0.4])
    W_out, b_out = least_squares_readoff(h, f, pairs, table, weights, unbiased=True)
    y = h @ W_out + b_out
    for p in range(pairs.shape[1]):
        means = [y[cases_of(f, pairs[:, p]) == c, p].mean().item() for c in range(4)]
        ones = (0.1 * means[1] + 0.2 * means[2] + 0.4 * means[3]) / 0.7
        assert [means[0], ones] == pytest.approx([0, 1], abs=1e-7)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("unbiased", [False, True])
def test_the_direction_is_that_of_the_linear_discriminant(gate, unbiased):
    (h, f), pairs, table = sample(), all_pairs(6), truth_table(gate)
    W_out, _ = least_squares_readoff(h, f, pairs, table, unbiased=unbiased)
    for p in range(pairs.shape[1]):
        fisher = LinearDiscriminantAnalysis().fit(h.numpy(), table[cases_of(f, pairs[:, p])].numpy()).coef_[0]
        cosine = W_out[:, p].numpy() @ fisher / np.linalg.norm(W_out[:, p]) / np.linalg.norm(fisher)
        assert cosine == pytest.approx(1, abs=1e-8)


def test_a_pair_never_on_together_is_refused_in_one_line(refused):
    h, f = sample()
    f[:, 3] *= 1 - f[:, 1]
    with refused("the sample has a pair that is never on together; use more vectors, or fewer features"):
        least_squares_readoff(h, f, all_pairs(6), truth_table("and"))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
def test_an_unbiased_readoff_without_weight_on_ones_or_on_zeros_is_refused_in_one_line(refused, weights):
    h, f = sample()
    with refused("requires positive case_weights both where the gate is 1 and where it is 0"):
        least_squares_readoff(h, f, all_pairs(6), truth_table("and"), torch.tensor(weights), unbiased=True)


@pytest.mark.parametrize("active", [FixedActive(1), BernoulliActive(0.0)])
def test_inputs_of_which_no_two_are_on_at_once_are_refused_in_one_line(refused, active):
    with refused("with this n_active, two inputs are never on at once"):
        explicit_readoff("and", active, 10)


def test_a_gate_without_a_name_is_refused_in_one_line(refused):
    with refused("gate is 'nand'; it must be one of and, or, xor"):
        truth_table("nand")


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("s", [2, 3])
def test_the_mean_output_over_all_weights_of_1_and_minus_1_is_the_gate_and_its_variance_is_exact(gate, s):
    readoff, m = sign_gate_readoff(gate, s), 2 + s
    W = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * m).double().T  # every neuron there is, (m, 2^m)
    W_out, b_out = readoff.weights(W, torch.tensor([[0], [1]]))
    f = torch.zeros(4, m, dtype=torch.float64)
    for case, (x_i, x_j) in enumerate(INPUTS):
        f[case, [0, 1]] = torch.tensor([x_i, x_j], dtype=torch.float64)
        f[case, 2 : 2 + s - x_i - x_j] = 1.0
    h = F.relu(f @ W)
    assert (h @ W_out + b_out).squeeze(1).tolist() == pytest.approx(truth_table(gate).tolist(), abs=1e-12)
    single = (h[0] - readoff.mu) * W_out[:, 0] * W.shape[1]  # what every neuron adds at 00, times d
    assert single.square().mean().item() == pytest.approx(readoff.variance)
    if s == 2:
        assert readoff.variance == pytest.approx({"and": 3, "or": 9, "xor": 18}[gate])


def test_a_readoff_of_signs_needs_a_known_gate_and_two_inputs(refused):
    with refused("gate is 'nor'"):
        sign_gate_readoff("nor", 2)
    with refused("s is 1"):
        sign_gate_readoff("and", 1)
