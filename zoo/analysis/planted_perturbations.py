"""Perturbations of superposed inputs of networks that compute ANDs, where it is known which changes should matter.

An input is the sum of the atoms of two features that are on. Outputs are one Bernoulli variable for every pair of
features. Whether each feature is on decides all of them, so the changes that a network with error correction should
notice are known: a feature that is off is added, or one that is on is taken away.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.analysis import perturbations
from zoo.analysis.local_response import (
    ANGLES,
    Response,
    ascend,
    bernoulli_kl,
    circle,
    exponent,
    fisher_matrix,
    on_sphere,
    quadratic,
    share_below,
)
from zoo.estimates import Estimate
from zoo.models.toy.gates import GateLayer, corrected
from zoo.models.toy.readoffs import affine_readoff, all_pairs, least_squares_readoff, truth_table
from zoo.null_models import permuted_coordinates, with_norms_of

WEIGHT_OF_ZEROS = 0.05  # of the squared error of a gate that should be 0; that of one that should be 1 weighs 1
BATCH, LEARNING_RATE = 256, 3e-3  # training
SAMPLE = 4096  # vectors to which the readoff of random neurons is fitted
DRAWS = 64  # random changes per input, where the changes along features are as many as there are features
HALF = ANGLES[: len(ANGLES) // 2]
ALONG = ("toward the other value", "away from the other value")
CONTROLS = ("isotropic", "covariance-matched", "mixture", "permuted dictionary")
CODES = ("L0-preserving", "isotropic", "covariance-matched", "span of active atoms", "permuted decoder")
INACTIVE = "inactive atoms"
EXCHANGES = ("wrong codes", "wrong directions", "isotropic")
VALUES = (0.5, 1.5)  # of features that are on, where codes are exchanged
PAIRS = ("two inactive features", "two active features", "two rows of the permuted dictionary")
NEAR = 0.8  # cosine from which an end of ascent counts as an atom


class PlantedNetwork(NamedTuple):
    """A network that computes the AND of every pair of superposed features, with Bernoulli outputs."""

    atoms: Tensor  # (K, D), unit rows
    gates: GateLayer | None  # None: the best affine readoff of x atomsᵀ in place of neurons
    thresholded: bool  # whether errors of the readoffs are removed before they become logits
    slope: float

    def readoffs(self, x: Tensor) -> Tensor:
        """Return the readoffs of all pairs, (n, P), which should be 0 or 1, for inputs (n, D)."""
        if self.gates is None:
            a, b, c, _ = affine_readoff("and")
            first, second = (x @ self.atoms.T)[:, all_pairs(len(self.atoms))].unbind(1)
            return a * first + b * second + c
        return self.gates.read(self.gates.hidden(x[None]))[0]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits slope (y - 1/2) of all pairs, (n, P), where y are readoffs, thresholded or not."""
        y = self.readoffs(x)
        return self.slope * ((corrected(y) if self.thresholded else y) - 0.5)

    def response(self, x: Tensor) -> Response:
        """Return the divergence of the outputs as a function of changes (n, D) of an input x (D,)."""
        clean = self.logits(x[None])
        return lambda changes: bernoulli_kl(clean, self.logits(x + changes))


def spread_atoms(n_features: int, d_in: int, generator: torch.Generator) -> Tensor:
    """Return random unit vectors that are moved apart by gradient descent on the sum of cosine⁴, (K, D)."""
    atoms = F.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
    for _ in range(1000):
        cosines = (atoms @ atoms.T).fill_diagonal_(0)
        atoms = F.normalize(atoms - 0.4 * cosines**3 @ atoms, dim=1)
    return atoms


def train_gates(atoms: Tensor, d_mlp: int, noise: float, steps: int, generator: torch.Generator) -> GateLayer:
    """Return a layer that is trained to compute the ANDs of all pairs from noisy sums of the atoms of two features.

    Noise is isotropic, and its length uniform between 0 and `noise`. Errors are squared. Readoffs that should be 0
    weigh 0.05, because nearly all of them should be.

    Args:
        atoms: Atoms of the features, (K, D).
        d_mlp: Number of neurons.
        noise: Largest length of the noise, where an atom has length 1.
        steps: Training steps, of 256 vectors each.
        generator: Random number generator.
    """
    layer = _layer(atoms, d_mlp, generator)
    with torch.no_grad():
        layer.W_in.div_(atoms.shape[1] ** 0.5)
    pairs = all_pairs(len(atoms))
    optimizer = torch.optim.Adam(layer.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        f = _two_on(torch.randint(pairs.shape[1], (BATCH,), generator=generator), pairs, len(atoms)).to(atoms)
        x = f @ atoms + _ball(BATCH, atoms, noise, generator)
        target = f[:, pairs[0]] * f[:, pairs[1]]
        error = (layer.read(layer.hidden(x[None]))[0] - target).square()
        loss = (error * torch.where(target > 0, 1.0, WEIGHT_OF_ZEROS)).sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return layer.requires_grad_(False)


@torch.no_grad()
def random_gates(atoms: Tensor, d_mlp: int, noise: float, generator: torch.Generator) -> GateLayer:
    """Return a layer of random neurons whose readoff is fitted to the same noisy vectors by least squares.

    All four cases of a pair of inputs weigh the same. The random neurons are universal: they are drawn without regard
    to the gates. Arguments are those of `train_gates`.
    """
    layer = _layer(atoms, d_mlp, generator)
    pairs = all_pairs(len(atoms))
    f = _two_on(torch.randint(pairs.shape[1], (SAMPLE,), generator=generator), pairs, len(atoms)).to(atoms)
    h = layer.hidden((f @ atoms + _ball(SAMPLE, atoms, noise, generator))[None])[0]
    W_out, b_out = least_squares_readoff(h, f, pairs, truth_table("and"), torch.full((4,), 0.25))
    layer.W_out.copy_(W_out[None])
    layer.b_out.copy_(b_out[None])
    return layer.requires_grad_(False)


def _layer(atoms: Tensor, d_mlp: int, generator: torch.Generator) -> GateLayer:
    n_features, d_in = atoms.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(1 << 31, (), generator=generator)))
        return GateLayer(d_in, d_mlp, all_pairs(n_features).shape[1]).to(atoms)


def _two_on(chosen: Tensor, pairs: Tensor, n_features: int) -> Tensor:
    """Return the vectors with the chosen pairs on, (n, K)."""
    return torch.zeros(len(chosen), n_features).scatter_(1, pairs[:, chosen].T, 1.0)


def _ball(n: int, atoms: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    directions = F.normalize(torch.randn(n, atoms.shape[1], generator=generator), dim=1)
    return (radius * torch.rand(n, 1, generator=generator) * directions).to(atoms)


def inputs(n_features: int, n: int, rng: np.random.Generator) -> Tensor:
    """Return n different vectors with two features on, (n, K) float64.

    Raises:
        ZooError: If there are fewer pairs than vectors.
    """
    pairs = all_pairs(n_features)
    chosen = torch.from_numpy(rng.choice(pairs.shape[1], n, replace=False))
    return _two_on(chosen, pairs, n_features).double()


def gate_errors(net: PlantedNetwork, f: Tensor) -> Tensor:
    """Return |y - AND| of all readoffs of inputs, (n, P), for features (n, K) that are on or off."""
    first, second = all_pairs(len(net.atoms))
    return (net.readoffs(f @ net.atoms) - f[:, first] * f[:, second]).abs()


class Planted(NamedTuple):
    """One input, and the directions in which it is changed."""

    f: Tensor  # (K,) features, on or off
    x: Tensor  # (D,)
    toward: Tensor  # (K, D): an inactive atom, or an active one with the opposite sign
    permuted: Tensor  # (K, D): the same of the permuted dictionary
    radii: Tensor  # (R,): lengths of changes


def planted(net: PlantedNetwork, f: Tensor, shares: tuple[float, ...], generator: torch.Generator) -> list[Planted]:
    """Return the inputs of features (n, K), with radii that are shares of |x - mean|.

    The mean is that of all inputs with two features on. One permuted dictionary is drawn for all of them.
    """
    atoms = net.atoms
    permuted = F.normalize(permuted_coordinates(atoms, generator).to(atoms), dim=1)
    mean = 2 * atoms.mean(0)
    found = []
    for one in f:
        x, sign = one @ atoms, (1 - 2 * one)[:, None]
        radii = torch.tensor(shares, dtype=x.dtype) * (x - mean).norm()
        found.append(Planted(one, x, sign * atoms, sign * permuted, radii))
    return found


def errors(net: PlantedNetwork, points: list[Planted], generator: torch.Generator) -> dict[str, np.ndarray]:
    """Return the mean divergence of errors along features and of their controls, by kind: (n, R, 2).

    The last axis has the divergence, and the quadratic form of the Fisher matrix. All errors of a radius have the same
    length. The kinds are `ALONG` and `CONTROLS`. Errors along features change one feature, each of them in turn: toward
    its other value (one that is off is added, one that is on is taken away), or away from it. `covariance-matched` has
    the mean and covariance of the former, and `mixture` the covariance of inputs.
    """
    toward = torch.cat([point.toward for point in points])
    of_errors = perturbations.gaussian_of(toward)
    of_inputs = perturbations.gaussian_of(_all_inputs(net.atoms))
    found: dict[str, list[list[list[float]]]] = {kind: [] for kind in ALONG + CONTROLS}
    for point in points:
        like = torch.ones(DRAWS, 1, dtype=toward.dtype).expand(DRAWS, toward.shape[1])
        directions = {
            ALONG[0]: point.toward,
            ALONG[1]: -point.toward,
            CONTROLS[0]: perturbations.isotropic(like, generator),
            CONTROLS[1]: perturbations.covariance_matched(like, of_errors, generator),
            CONTROLS[2]: perturbations.mixture(like, of_inputs, generator),
            CONTROLS[3]: point.permuted,
        }
        for kind, values in _means(net, point, directions).items():
            found[kind].append(values)
    return {kind: np.array(values) for kind, values in found.items()}


def changes_of_codes(net: PlantedNetwork, points: list[Planted], generator: torch.Generator) -> dict[str, np.ndarray]:
    """Return the mean divergence of L0-preserving changes of the codes and of their controls, by kind: (n, R, 2).

    The last axis is that of `errors`. The codes are the features themselves. The kinds are `CODES` and `INACTIVE`: the
    same changes of as many atoms that are off.
    """
    kinds = (*CODES, INACTIVE)
    found: dict[str, list[list[list[float]]]] = {kind: [] for kind in kinds}
    atoms = net.atoms
    for point in points:
        by_radius: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
        fisher = _fisher(net, point)
        for radius in point.radii:
            codes = point.f.expand(DRAWS, -1)
            delta = perturbations.l0_preserving(codes, atoms, radius.expand(DRAWS), generator)
            change = delta @ atoms
            moved = delta @ perturbations.permuted_atoms(atoms, generator)
            inactive = perturbations.on_inactive_atoms(delta, codes, generator) @ atoms
            of_changes = perturbations.gaussian_of(change)
            directions = {
                CODES[0]: change,
                CODES[1]: perturbations.isotropic(change, generator),
                CODES[2]: perturbations.covariance_matched(change, of_changes, generator),
                CODES[3]: perturbations.in_active_span(change, codes, atoms, generator),
                CODES[4]: moved,
                INACTIVE: inactive,
            }
            for kind, each in directions.items():
                by_radius[kind].append(_mean(net, point, fisher, each, float(radius)))
        for kind in kinds:
            found[kind].append(by_radius[kind])
    return {kind: np.array(values) for kind, values in found.items()}


def re_encoded(net: PlantedNetwork, points: list[Planted], generator: torch.Generator) -> dict[str, np.ndarray]:
    """Return what happens if inputs with L0-preserving changes are encoded again, by name: (n, R).

    The encoder selects the two atoms with the largest inner products with the input. `share` is the share of changes
    after which it selects the same two features. The kinds `CODES[0]`, `CODES[1]` and `CODES[3]` have the mean
    divergences of these changes and of their controls; NaN if there are none.
    """
    kinds = (CODES[0], CODES[1], CODES[3])
    found: dict[str, list[list[float]]] = {kind: [] for kind in ("share", *kinds)}
    for point in points:
        rows: dict[str, list[float]] = {kind: [] for kind in found}
        codes = point.f.expand(DRAWS, -1)
        for radius in point.radii:
            change = perturbations.l0_preserving(codes, net.atoms, radius.expand(DRAWS), generator) @ net.atoms
            selected = ((point.x + change) @ net.atoms.T).topk(2).indices
            keeps = (codes.gather(1, selected) > 0).all(1)
            others = {
                CODES[0]: change,
                CODES[1]: perturbations.isotropic(change, generator),
                CODES[3]: perturbations.in_active_span(change, codes, net.atoms, generator),
            }
            rows["share"].append(float(keeps.double().mean()))
            for kind, each in others.items():
                rows[kind].append(float(net.response(point.x)(each)[keeps].mean()))
        for kind in found:
            found[kind].append(rows[kind])
    return {kind: np.array(values) for kind, values in found.items()}


def exchanges(net: PlantedNetwork, f: Tensor, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Return the mean divergence of wrong codes and of wrong directions of the same norm, by kind: (n,).

    Features that are on have random values between 1/2 and 3/2. `wrong codes` replaces the values by other random ones,
    `wrong directions` keeps the values and replaces all atoms by those of other features. `isotropic` changes have the
    same norm as well. A network that corrects errors of the values reacts little to wrong codes.

    Args:
        net: The network.
        f: Features, on or off, (n, K).
        generator: Random number generator.
    """
    found: dict[str, list[float]] = {kind: [] for kind in EXCHANGES}
    low, high = VALUES
    for one in f:
        values = one * (low + (high - low) * torch.rand(2, DRAWS, len(one), generator=generator, dtype=one.dtype))
        codes, other = values
        wrong_codes = (other - codes) @ net.atoms
        moved = codes @ (perturbations.permuted_atoms(net.atoms, generator) - net.atoms)
        changes = [wrong_codes, with_norms_of(moved, wrong_codes), perturbations.isotropic(wrong_codes, generator)]
        responses = [net.response(x)(each) for x, each in zip(codes @ net.atoms, torch.stack(changes, 1), strict=True)]
        for kind, mean in zip(EXCHANGES, torch.stack(responses).mean(0).tolist(), strict=True):
            found[kind].append(mean)
    return {kind: np.array(values) for kind, values in found.items()}


def exponents(
    net: PlantedNetwork, points: list[Planted], n_pairs: int, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """Return the exponents of the response on circles through two directions, by kind: (n pairs, R), or NaN.

    The kinds are `PAIRS`. The response is the mean of those in opposite directions, at 8 angles. It is NaN where all
    responses are 0.
    """
    found: dict[str, list[list[float]]] = {kind: [] for kind in PAIRS}
    for point in points:
        respond = net.response(point.x)
        off = (point.f == 0).nonzero().squeeze(1)
        off = off[torch.randperm(len(off), generator=generator)[: 2 * n_pairs]].view(-1, 2)
        on = (point.f > 0).nonzero().view(1, 2)
        for kind, directions, which in zip(
            PAIRS, (point.toward, point.toward, point.permuted), (off, on, off), strict=True
        ):
            for u, v in directions[which]:
                found[kind].append([_exponent(respond, u, v, float(radius)).mean for radius in point.radii])
    return {kind: np.array(values) for kind, values in found.items()}


def _exponent(respond: Response, u: Tensor, v: Tensor, radius: float) -> Estimate:
    values = on_sphere(respond, circle(u, v), radius).unflatten(0, (2, -1)).mean(0)  # t and t + π
    return exponent(values.numpy(), float(u @ v), HALF)


def sphere(
    net: PlantedNetwork, points: list[Planted], directions: int, starts: int, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """Return where atoms stand among random directions of a sphere, and where gradient ascent on it ends.

    Returns:
        `planted isotropic`, `permuted isotropic` and the same with `covariance-matched`: the mean share of random
        directions whose divergence is below that of an atom, toward its feature's other value, or of a row of the
        permuted dictionary, (n, R). `planted` and `permuted`: cosines of ends of ascent with the nearest of them,
        (n, R, starts). `nearest`, `height` and `idle`: index of the nearest atom, divergence of the end, and the part
        of it that is due to ANDs of two inactive features, (n, R, starts).
    """
    of_inputs = perturbations.gaussian_of(_all_inputs(net.atoms))
    found: dict[str, list[list[np.ndarray]]] = {}
    for point in points:
        respond = net.response(point.x)
        idle = (point.f[all_pairs(len(point.f))] == 0).all(0)
        clean = net.logits(point.x[None])[:, idle]
        by_name: dict[str, list[np.ndarray]] = {}
        like = torch.ones(directions, 1, dtype=point.x.dtype).expand(directions, len(point.x))
        for radius in point.radii.tolist():
            dictionaries = {"planted": point.toward, "permuted": point.permuted}
            values = {name: on_sphere(respond, atoms, radius) for name, atoms in dictionaries.items()}
            random = {
                CONTROLS[0]: perturbations.isotropic(like, generator),
                CONTROLS[1]: perturbations.mixture(like, of_inputs, generator),
            }
            for control, drawn in random.items():
                null = on_sphere(respond, drawn, radius)
                for name, own in values.items():
                    by_name.setdefault(f"{name} {control}", []).append(share_below(own, null).mean().numpy())
            ends, height = ascend(respond, random[CONTROLS[0]][:starts], radius, 60)
            by_name.setdefault("height", []).append(height.numpy())
            of_idle = bernoulli_kl(clean, net.logits(point.x + radius * ends)[:, idle])
            by_name.setdefault("idle", []).append(of_idle.numpy())
            for name, atoms in dictionaries.items():
                cosine, nearest = perturbations.cosines_to_atoms(ends, atoms)
                by_name.setdefault(name, []).append(cosine.numpy())
                if name == "planted":
                    by_name.setdefault("nearest", []).append(nearest.numpy())
        for name, each in by_name.items():
            found.setdefault(name, []).append(each)
    return {name: np.array(each) for name, each in found.items()}


def _all_inputs(atoms: Tensor) -> Tensor:
    return atoms[all_pairs(len(atoms))].sum(0)


def _fisher(net: PlantedNetwork, point: Planted) -> Tensor:
    return fisher_matrix(net.logits, point.x, bernoulli=True)


def _means(net: PlantedNetwork, point: Planted, directions: dict[str, Tensor]) -> dict[str, list[list[float]]]:
    fisher = _fisher(net, point)
    return {
        kind: [_mean(net, point, fisher, each, radius) for radius in point.radii.tolist()]
        for kind, each in directions.items()
    }


def _mean(net: PlantedNetwork, point: Planted, fisher: Tensor, directions: Tensor, radius: float) -> list[float]:
    """Return the mean divergence and the mean quadratic form of changes of length `radius`."""
    changes = radius * F.normalize(directions, dim=1)
    return [float(net.response(point.x)(changes).mean()), float(quadratic(fisher, changes).mean())]
