"""Volumes of the parameters with a loss of at most t, and their exponents, estimated by sampling from a Gaussian prior.

K(w) is any non-negative function of parameters, such as a loss above its minimum in nats. V(t) is the probability of
K(w) <= t for w from the prior N(0, 1) in d dimensions; for another prior, let K map w to it first (the normal
distribution function maps w to the unit cube). -log2 V(t) are the bits that it takes to find such parameters by chance.
The exponent at t is the mean slope of ln V against ln t between t / √ratio and t √ratio.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import Estimate

Potential = Callable[[Tensor], Tensor]  # parameters (N, d) to K (N,)

CHUNK = 65536  # parameters whose K is computed at a time
KEPT = 0.25  # share of the particles that a level of splitting keeps
SMALLEST_MOVE = 3e-4  # of one coordinate, relative to the prior


@dataclass(frozen=True)
class Volume:
    """Volume and exponent at one threshold, with 95 % intervals.

    Args:
        threshold: t, in the units of K.
        bits: -log2 V(t).
        exponent: Mean slope of ln V against ln t between t / √ratio and t √ratio.
    """

    threshold: float
    bits: Estimate
    exponent: Estimate


def volumes_by_sampling(
    potential: Potential,
    dim: int,
    thresholds: Sequence[float],
    samples: int = 1_000_000,
    ratio: float = 4.0,
    seed: int = 0,
    device: str = "cpu",
) -> list[Volume]:
    """Estimate volumes by the share of independent draws from the prior with K <= t.

    The interval of V is Wilson's. Of the draws with K <= t √ratio, the number with K <= t / √ratio is binomial with the
    probability p = ratio^(-exponent); the interval of the exponent is Wilson's interval of p. Suitable while
    samples * V(t) is at least about 100.

    Args:
        potential: K, from parameters (N, d) float64 to (N,).
        dim: Number of parameters d.
        thresholds: Values of t, positive.
        samples: Number of draws.
        ratio: Ratio of the two thresholds from which an exponent is estimated.
        seed: Seed of the draws.
        device: Device of the parameters.

    Returns:
        One estimate for every threshold. Bits have an infinite upper end if no draw has K <= t, and the exponent is
        unknown if no draw has K <= t √ratio.

    Raises:
        ZooError: If an argument is out of range, or K is NaN or has another shape than (N,).
    """
    _check(dim, thresholds, ratio, samples=samples)
    ends = torch.tensor(
        [t * factor for t in thresholds for factor in (ratio**-0.5, 1, ratio**0.5)], dtype=torch.float64, device=device
    )
    counts = torch.zeros(len(ends), dtype=torch.long, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, samples, CHUNK):
        w = torch.randn(
            min(CHUNK, samples - start), dim, generator=generator, dtype=torch.float64, device=device
        )  # (N, d)
        counts += (_K(potential, w)[:, None] <= ends).sum(0)
    found = []
    for t, (below, at, above) in zip(thresholds, counts.view(-1, 3).tolist(), strict=True):
        slope = _transformed(estimates.rate(below, above), ratio) if above else estimates.UNKNOWN
        found.append(Volume(t, _transformed(estimates.rate(at, samples), 2), slope))
    return found


def volumes_by_splitting(
    potential: Potential,
    dim: int,
    thresholds: Sequence[float],
    particles: int = 500,
    repeats: int = 8,
    moves: int = 60,
    ratio: float = 4.0,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[list[Volume], Tensor]:
    """Estimate small volumes by adaptive multilevel splitting, also called subset simulation or nested sampling.

    Particles are drawn from the prior. At every level, the threshold is lowered such that a quarter of them remains
    below it, or to the next wanted threshold. The others are replaced by copies of those that remain, and all move by
    Metropolis steps that leave the prior restricted to K <= threshold unchanged: in turn of all coordinates (w becomes
    √(1 - b²) w + b ξ with ξ ~ N(0, 1), where b adapts to accept a third of the steps) and of one random coordinate
    (with b log-uniform up to 1). V is the product of the shares that remained. Au and Beck 2001, "Estimation of small
    failure probabilities in high dimensions by subset simulation", Probabilistic Engineering Mechanics 16.

    The intervals are Student's over independent repeats. They do not cover parts of the volume that no repeat finds,
    nor the bias from moves that are too few for a particle to forget its copy: compare with other numbers of moves, and
    with `volumes_by_sampling` at a threshold that both reach.

    Args:
        potential: K, from parameters (N, d) float64 to (N,).
        dim: Number of parameters d.
        thresholds: Values of t, positive.
        particles: Number of particles of every repeat.
        repeats: Number of independent repeats.
        moves: Metropolis steps of every particle at every level.
        ratio: Ratio of the two thresholds from which an exponent is estimated.
        seed: Seed of the draws.
        device: Device of the parameters.

    Returns:
        One estimate for every threshold, and the particles at the smallest threshold / √ratio,
        (repeats, particles, d): draws from the prior restricted to this volume.

    Raises:
        ZooError: If an argument is out of range, K is NaN or has another shape than (N,), or no particle gets below a
            threshold, because K does not get lower.
    """
    _check(dim, thresholds, ratio, particles=particles, repeats=repeats, moves=moves)
    if particles < 20 or repeats < 2:
        raise ZooError(f"there are {particles} particles and {repeats} repeats; at least 20 and 2 are needed")
    ends = sorted({t * factor for t in thresholds for factor in (ratio**-0.5, 1, ratio**0.5)}, reverse=True)
    generator = torch.Generator(device).manual_seed(seed)
    runs, last = [], []
    for _ in range(repeats):
        logs, w = _split(potential, dim, ends, particles, moves, generator)
        runs.append(dict(zip(ends, logs, strict=True)))
        last.append(w)
    found = []
    for t in thresholds:
        low, high = t * ratio**-0.5, t * ratio**0.5
        bits = estimates.mean([-run[t] / math.log(2) for run in runs])
        slope = estimates.mean([(run[high] - run[low]) / math.log(ratio) for run in runs])
        found.append(Volume(t, bits, slope))
    return found, torch.stack(last)


def _split(
    potential: Potential, dim: int, ends: Sequence[float], particles: int, moves: int, generator: torch.Generator
) -> tuple[list[float], Tensor]:
    """Return ln V at every threshold of `ends` (descending), and the particles at the last one, (particles, d)."""
    w = torch.randn(particles, dim, generator=generator, dtype=torch.float64, device=generator.device)
    K = _K(potential, w)
    logs: list[float] = []
    log_volume, scale = 0.0, 0.5
    for end in ends:
        while True:
            level = max(end, float(K.sort().values[max(0, int(KEPT * particles) - 1)]))
            stays = level >= K
            share = float(stays.double().mean())
            if share == 1 and level > end:
                raise ZooError(f"K does not get below {level:.3g}, so that there is no volume below {end:.3g}")
            log_volume += math.log(share)
            survivors = stays.nonzero().squeeze(1)
            chosen = survivors[torch.randint(len(survivors), (particles,), generator=generator, device=w.device)]
            chosen = torch.where(stays, torch.arange(particles, device=w.device), chosen)
            w, K, scale = _moved(potential, w[chosen], K[chosen], level, scale, moves, generator)
            if level == end:
                break
        logs.append(log_volume)
    return logs, w


def _moved(
    potential: Potential, w: Tensor, K: Tensor, level: float, scale: float, moves: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Return particles (N, d) after Metropolis steps below a level, their K (N,), and the adapted scale."""
    n, dim = w.shape
    for move in range(moves):
        whole = move % 2 == 0
        uniform = torch.rand(n, 1, generator=generator, dtype=w.dtype, device=w.device)
        noise = torch.randn(n, dim, generator=generator, dtype=w.dtype, device=w.device)
        b = torch.full_like(uniform, scale) if whole else SMALLEST_MOVE**uniform  # (N, 1)
        proposed = (1 - b**2).sqrt() * w + b * noise
        if not whole:
            one = torch.randint(dim, (n, 1), generator=generator, device=w.device)
            proposed = w.scatter(1, one, proposed.gather(1, one))
        K_proposed = _K(potential, proposed)
        accepted = K_proposed <= level
        w, K = torch.where(accepted[:, None], proposed, w), torch.where(accepted, K_proposed, K)
        if whole:
            scale = min(1.0, scale * math.exp(0.3 * (float(accepted.double().mean()) - 1 / 3)))
    return w, K, scale


def _K(potential: Potential, w: Tensor) -> Tensor:
    """Return K (N,) of parameters (N, d), checked."""
    K = potential(w)
    if K.shape != w.shape[:1]:
        raise ZooError(f"the potential returns shape {tuple(K.shape)} for parameters {tuple(w.shape)}; (N,) is needed")
    if K.isnan().any():
        raise ZooError("the potential is NaN at some parameters")
    return K


def _transformed(share: Estimate, base: float) -> Estimate:
    """Return -log(share) to a base, with its interval; infinite where the share is 0."""
    mean, low, high = (
        -math.log(p) / math.log(base) if p > 0 else math.inf for p in (share.mean, share.high, share.low)
    )
    return Estimate(mean, low, high, share.n)


def _check(dim: int, thresholds: Sequence[float], ratio: float, **counts: int) -> None:
    if not thresholds or not all(math.isfinite(t) and t > 0 for t in thresholds):
        raise ZooError(f"thresholds are {list(thresholds)}; at least one is needed, and all must be positive numbers")
    if not ratio > 1:
        raise ZooError(f"ratio is {ratio}; it must be above 1")
    for name, value in {"dim": dim, **counts}.items():
        if value < 1:
            raise ZooError(f"{name} is {value}; it must be at least 1")
