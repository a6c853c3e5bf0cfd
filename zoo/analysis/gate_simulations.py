"""Simulations of Boolean gates of pairs of sparse inputs, with their errors by case and in theory.

A case is the pair of inputs: 00, 01, 10 or 11.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.active_inputs import ActiveInputs, FixedActive
from zoo.metrics import CASES, CaseErrors
from zoo.models.toy.gates import GateNet
from zoo.models.toy.gaussian_signs import kappa, mean_abs_times_signs
from zoo.models.toy.readoffs import (
    affine_readoff,
    all_pairs,
    explicit_readoff,
    least_squares_readoff,
    rms_error_of_00,
    sign_gate_readoff,
    truth_table,
)

ERRORS = ("mean", "rms", "bias", "max")
AT_ONCE = 450  # vectors
Outputs = Callable[[Tensor], Tensor]  # features (N, m) to outputs (seeds, N, pairs)


def errors_of_gates(
    gate: str, active: ActiveInputs, d_mlp: int, n_features: int, n_vectors: int, seed: int
) -> dict[str, Any]:
    """Return errors by case of random neurons with the explicit readoff, and the theoretical rms error of case 00."""
    rng = _seeded(seed)
    readoff = explicit_readoff(gate, active, n_features)
    W_in = torch.randn(n_features, d_mlp)
    f = _draw(active, rng, n_vectors, n_features)
    errors = _errors(gate, f, F.relu(f @ W_in) @ readoff.weights(W_in, all_pairs(n_features)))
    theory = rms_error_of_00(readoff, active.n_active, d_mlp) if isinstance(active, FixedActive) else math.nan
    return errors | {"theory": theory}


def errors_with_signs(
    gate: str, n_active: int, d_mlp: int, n_features: int, n_vectors: int, seed: int
) -> dict[str, Any]:
    """Return errors by case of random neurons with weights +-1, and the theoretical rms error of case 00."""
    rng = _seeded(seed)
    readoff = sign_gate_readoff(gate, n_active)
    W_in = random_signs(n_features, d_mlp)
    W_out, b_out = readoff.weights(W_in, all_pairs(n_features))
    f = _draw(FixedActive(n_active), rng, n_vectors, n_features)
    errors = _errors(gate, f, F.relu(f @ W_in) @ W_out + b_out)
    return errors | {"theory": math.sqrt(readoff.variance / d_mlp)}


def errors_at_other_numbers(
    built_for: int, n_active: int, d_mlp: int, n_features: int, n_vectors: int, seed: int
) -> dict[str, Any]:
    """Return errors by case of AND at another number of active inputs than its readoff is built for.

    `theory` in the result is the mean output in case 11 according to theory.
    """
    rng = _seeded(seed)
    W_in = torch.randn(n_features, d_mlp)
    W_out = explicit_readoff("and", FixedActive(built_for), n_features).weights(W_in, all_pairs(n_features))
    f = _draw(FixedActive(n_active), rng, n_vectors, n_features)
    errors = _errors("and", f, F.relu(f @ W_in) @ W_out)
    return errors | {"theory": float(kappa(built_for) / kappa(n_active))}


def errors_of_superposed_inputs(
    d_in: int, d_mlp: int, n_active: int, n_features: int, n_vectors: int, seed: int
) -> dict[str, Any]:
    """Return errors by case of AND on inputs that are sums of random unit vectors.

    Returns:
        The errors, and two values for the rms error of case 00: its value in `theory`, and its `floor`, the limit for
        infinitely many neurons.
    """
    rng, active = _seeded(seed), FixedActive(n_active)
    phi = F.normalize(torch.randn(n_features, d_in, dtype=torch.float64), dim=1)
    W = torch.randn(d_in, d_mlp)
    f = _draw(active, rng, n_vectors, n_features)
    x = f.double() @ phi
    readoff, pairs = explicit_readoff("and", active, n_features), all_pairs(n_features)
    errors = _errors("and", f, F.relu(x.float() @ W) @ readoff.weights(phi.float() @ W, pairs))
    off = (f[:, pairs[0]] + f[:, pairs[1]]) == 0
    with_features = x @ phi.T  # covariances of the neuron's input with each feature's weight, (N, m)
    means = mean_abs_times_signs(
        x.square().sum(1, keepdim=True).expand_as(off),
        with_features[:, pairs[0]],
        with_features[:, pairs[1]],
        (phi @ phi.T)[pairs[0], pairs[1]].expand_as(off),
    )
    limit = float(kappa(n_active)) / 2 * means[off]
    scatter = float(kappa(n_active)) ** 2 / 2 * x.square().sum(1, keepdim=True).expand_as(off)[off] - limit**2
    floor = limit.square().mean()
    return errors | {"floor": float(floor.sqrt()), "theory": float((floor + scatter.mean() / d_mlp).sqrt())}


def errors_in_depth(
    d_mlp: int, error_correction: bool, depth: int, n_groups: int, in_group: int, n_vectors: int, seed: int
) -> list[float]:
    """Return the rms error at every depth: of ANDs in several small networks, then of ORs of the outputs before."""
    rng, n_features = _seeded(seed), n_groups * in_group
    net = GateNet(n_features, d_mlp, "and", 1, depth=depth, n_groups=n_groups, error_correction=error_correction)
    inputs, fired = FixedActive(2, n_groups), FixedActive(n_groups)  # every group has two inputs on, so one AND is 1
    net.construct(FixedActive(2), *[fired] * (depth - 1))
    f = _draw(inputs, rng, n_vectors, n_features)
    with torch.no_grad():
        outputs = net(f)
    rms = []
    for t, (y, (place, case)) in enumerate(zip(outputs, net.active(f), strict=True)):
        target = torch.zeros(y.numel())
        target[place] = net.gates(t)[1][case]
        rms.append(float((y.flatten() - target).square().mean().sqrt()))
    return rms


@torch.no_grad()
def computed_readoff(method: str, gate: str, net: GateNet, n_features: int) -> Outputs:
    """Return a function that computes gates by a readoff without training.

    Args:
        method: "affine", an affine function of the inputs; "signs", new first layers of weights +-1 and their readoff;
            or a readoff of the net's random first layers: "explicit", "least squares", which weighs the four cases
            equally, "balanced", which weighs zeros and ones equally, or "discriminant", which is least squares scaled
            so that its mean output is right.
        gate: "and" or "xor".
        net: The network; its readoff is replaced, except by "affine".
        n_features: Number of inputs; two of them are on.
    """
    pairs, layer, f = all_pairs(n_features), net.stages[0], all_vectors(n_features)
    n_seeds = len(layer.W_in)
    if method == "affine":
        a, b, c, _ = affine_readoff(gate)
        return lambda f: (a * f[:, pairs[0]] + b * f[:, pairs[1]] + c).expand(n_seeds, -1, -1)
    if method == "explicit":
        net.construct(FixedActive(2))
        return lambda f: net(f)[0]
    if method == "signs":
        layer.W_in.copy_(random_signs(*layer.W_in.shape))
        W_out, b_out = sign_gate_readoff(gate, 2).weights(layer.W_in, pairs)
        layer.W_out.copy_(W_out)
        layer.b_out.copy_(b_out)
        return lambda f: net(f)[0]
    weights, unbiased = torch.full((4,), 0.25), method == "discriminant"
    if method == "balanced":
        weights = torch.tensor(balanced_weights(gate, n_features))
    for seed in range(n_seeds):
        h = torch.relu(f @ layer.W_in[seed])
        W_out, b_out = least_squares_readoff(h, f, pairs, truth_table(gate), weights, unbiased)
        layer.W_out[seed], layer.b_out[seed] = W_out.float(), b_out.float()
    return lambda f: net(f)[0]


@torch.no_grad()
def errors_on_all_vectors(outputs: Outputs, gate: str, n_features: int, n_seeds: int) -> dict[str, Any]:
    """Return errors over all vectors with two inputs on, for every seed and case."""
    pairs, truth, metric = all_pairs(n_features), truth_table(gate).float(), CaseErrors(n_seeds)
    for f in all_vectors(n_features).split(AT_ONCE):
        case = (2 * f[:, pairs[0]] + f[:, pairs[1]]).to(torch.uint8)
        metric.update(outputs(f) - truth[case.int()], case.expand(n_seeds, -1, -1))
    found = metric.compute()
    return {name: found[name].tolist() for name in ERRORS}


def balanced_weights(gate: str, n_features: int) -> list[float]:
    """Return the weights of the cases, (4,), if zeros and ones weigh 1/2 each and two inputs are on."""
    frequency, table = FixedActive(2).pair_probabilities(n_features).double(), truth_table(gate)
    parts = [frequency * (table == value) for value in (0, 1)]
    return [float(w) for w in sum(part / (2 * part.sum()) for part in parts)]  # type: ignore[union-attr]


def random_signs(*shape: int) -> Tensor:
    """Return independent signs, 1 or -1 with equal probability."""
    return 2.0 * torch.randint(2, shape) - 1


def all_vectors(n_features: int) -> Tensor:
    """Return all vectors with two inputs on, (m (m - 1) / 2, m)."""
    pairs = all_pairs(n_features)
    return torch.zeros(pairs.shape[1], n_features).scatter_(1, pairs.T, 1.0)


def _seeded(seed: int) -> np.random.Generator:
    """Return a generator for the inputs, and seed torch's generator for the weights."""
    torch.manual_seed(seed)
    return np.random.default_rng((seed, 1))


def _draw(active: ActiveInputs, rng: np.random.Generator, n_vectors: int, n_features: int) -> Tensor:
    return torch.from_numpy(active.draw(rng, n_vectors, n_features).astype(np.float32))


def _errors(gate: str, f: Tensor, y: Tensor) -> dict[str, Any]:
    """Return errors by case of outputs (N, pairs) for features (N, m)."""
    pairs = all_pairs(f.shape[1])
    case = (2 * f[:, pairs[0]] + f[:, pairs[1]]).to(torch.uint8)
    metric = CaseErrors(1)
    metric.update((y - truth_table(gate).float()[case.int()]).unsqueeze(0), case.unsqueeze(0))
    found = metric.compute()
    return {name: dict(zip(CASES, found[name][0].tolist(), strict=True)) for name in ERRORS}
