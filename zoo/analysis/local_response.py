"""How a divergence depends on the direction of a change of given length: Fisher matrix, sphere, ascent, exponent.

A response is a function from changes (n, D) to divergences (n,) in nats, such as `zoo.perturbations.CleanRun.kl_at`
makes.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate

Response = Callable[[Tensor], Tensor]  # changes (n, D) -> divergences (n,)
TANGENTS_AT_ONCE = 128
ANGLES = 2 * math.pi * np.arange(16) / 16  # both atoms with both signs, and 12 angles between them
LEAST_ANGLES = 8
EXPONENTS = np.linspace(0.25, 12, 48)  # where the search for the exponent begins


def fisher_matrix(logits: Callable[[Tensor], Tensor], at: Tensor, bernoulli: bool = False) -> Tensor:
    """Return the Fisher matrix of the predictions with respect to activations, (D, D).

    With the Jacobian J (V, D) of the logits, it is F = Jᵀ (diag p - p pᵀ) J for a softmax. For a small change δ, the
    divergence is about ½ δᵀFδ. J is computed by D Jacobian-vector products in forward mode.

    Args:
        logits: Function from activations (n, D) to logits (n, V).
        at: The activations, (D,).
        bernoulli: Whether the outputs are instead independent Bernoulli variables with these logits; F is then
            Jᵀ diag(p (1 - p)) J.
    """
    columns = []
    with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        for tangents in torch.eye(len(at), dtype=at.dtype, device=at.device).split(TANGENTS_AT_ONCE):
            run = logits(forward_ad.make_dual(at.expand_as(tangents).clone(), tangents))
            values, column = forward_ad.unpack_dual(run)
            columns.append(torch.zeros_like(values) if column is None else column)
        J = torch.cat(columns)  # (D, V)
    if bernoulli:
        p = values[0].sigmoid()
        return J * (p * (1 - p)) @ J.T
    p = values[0].softmax(-1)
    J = J - (J @ p)[:, None]
    return J * p @ J.T


def quadratic(fisher: Tensor, changes: Tensor) -> Tensor:
    """Return ½ δᵀFδ for changes δ (n, D), (n,): the divergence that the Fisher matrix F predicts for small changes."""
    return torch.einsum("nd,de,ne->n", changes, fisher, changes) / 2


def bernoulli_kl(clean: Tensor, edited: Tensor) -> Tensor:
    """Return KL(clean ‖ edited) of independent Bernoulli variables from their logits (..., M), (...) in nats."""
    p = clean.sigmoid()
    return (p * (F.softplus(-edited) - F.softplus(-clean)) + (1 - p) * (F.softplus(edited) - F.softplus(clean))).sum(-1)


# The sphere.


def on_sphere(respond: Response, directions: Tensor, radius: float) -> Tensor:
    """Return the divergences of changes of length `radius` in some directions (n, D), (n,).

    Raises:
        ZooError: If the radius is not positive.
    """
    _check_radius(radius)
    with torch.no_grad():
        return respond(radius * F.normalize(directions, dim=1))


def share_below(values: Tensor, random: Tensor) -> Tensor:
    """Return the share of random divergences (n,) that are below each of `values` (m,), (m,) float64.

    Random divergences that equal a value count half. If values and random divergences are draws of the same
    distribution, the shares are uniform between 0 and 1.
    """
    ordered = random.sort().values
    below, upto = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(random))


def ascend(
    respond: Response, directions: Tensor, radius: float, steps: int = 100, first_step: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Return where gradient ascent on a sphere ends: directions (n, D) of unit length, and their divergences (n,).

    Each step moves along the gradient's tangential part and returns to the sphere. A step that does not raise the
    divergence is rejected. Every start has a step length of its own: it is multiplied by 1.5 after an accepted step,
    and by 0.3 after a rejected one. A start at which the gradient is 0 does not move.

    Args:
        respond: Differentiable function from changes (n, D) to divergences (n,), each of its own change only.
        directions: Starts, (n, D).
        radius: Length of the changes.
        steps: Number of steps; each costs one forward and one backward pass of all changes.
        first_step: Length of the first step, in radii.

    Raises:
        ZooError: If the radius is not positive.
    """
    _check_radius(radius)
    u = F.normalize(directions, dim=1)
    value, slope = _slope(respond, radius * u)
    size = torch.full_like(u[:, :1], first_step)
    for _ in range(steps):
        tangent = slope - (slope * u).sum(1, keepdim=True) * u
        tried = F.normalize(u + size * tangent / tangent.norm(dim=1, keepdim=True).clamp(min=1e-30), dim=1)
        new_value, new_slope = _slope(respond, radius * tried)
        better = (new_value > value)[:, None].to(u.device)
        u, slope = torch.where(better, tried, u), torch.where(better, new_slope, slope)
        value = torch.maximum(value, new_value)
        size = torch.where(better, 1.5 * size, 0.3 * size).clamp(max=1.0)
    return u, value


def _slope(respond: Response, changes: Tensor) -> tuple[Tensor, Tensor]:
    changes = changes.detach().requires_grad_()
    with torch.enable_grad():
        values = respond(changes)
        (slope,) = torch.autograd.grad(values.sum(), changes)
    return values.detach(), slope


def _check_radius(radius: float) -> None:
    if not radius > 0:
        raise ZooError(f"the radius is {radius}; it must be positive")


# The exponent between two atoms.


def circle(u: Tensor, v: Tensor, angles: np.ndarray = ANGLES) -> Tensor:
    """Return cos t u + sin t v at every angle t, divided by its norm, (n, D), for atoms u and v (D,)."""
    t = torch.as_tensor(angles, dtype=u.dtype, device=u.device)[:, None]
    return F.normalize(t.cos() * F.normalize(u, dim=0) + t.sin() * F.normalize(v, dim=0), dim=1)


def exponent(responses: np.ndarray, cosine: float, angles: np.ndarray = ANGLES) -> Estimate:
    """Return the exponent p of the response on the circle through two atoms u and v, with its 95 % interval.

    The responses at fixed radius, in the directions w(t) of `circle`, are fitted by

        R(t) = a |α|^p + b |β|^p + g sign(αβ) |αβ|^(p/2),    α = uᵀw(t), β = vᵀw(t),

    with free a, b, g and p, for u and v of unit norm. α and β are the components along the two atoms: with the cosine c
    of u and v, they are α = (cos t + c sin t) / m and β = (sin t + c cos t) / m, with m² = 1 + 2 c cos t sin t. For p =
    2, the formula can equal any quadratic form, whatever u and v are. A Fisher matrix thus predicts the exponent 2.
    Without the cross term g, a quadratic form would seem to have another exponent.

    Let the response be the sum of the p-th powers of the components along features. If u and v are features, the
    exponent is p, except that interference from the other features moves it towards 2. The exponent is also too low if
    the response is instead a sum of p-th powers of the coefficients cos t and sin t, which a readout of u and v without
    interference gives: 3.7 in place of 4 at a cosine of 0.1, and 3.2 at 0.2. Pairs with a small cosine are therefore
    preferable. With an exponent above 2, the response is larger at u and v than between them. This is possible for more
    features than dimensions (Ferreira da Silva and Heimersheim 2026, arXiv 2606.24964).

    The fit minimises squared errors. The interval is that of nonlinear least squares with Student's t: it describes how
    well the formula fits at these angles, for independent errors of equal variance.

    Args:
        responses: Divergences at the angles, (n,).
        cosine: Cosine c between u and v.
        angles: The angles t, (n,), with cos t sin t of both signs. The formula is the same for t and t + π, so at least
            8 angles must be different modulo π.

    Returns:
        The estimate; UNKNOWN if all responses are 0.

    Raises:
        ZooError: If there are fewer than 8 such angles, or cos t sin t has one sign only.
    """
    from scipy import optimize, stats

    t, y = np.asarray(angles, float), np.asarray(responses, float)
    cos, sin = np.cos(t), np.sin(t)
    different = np.unique(np.round(t % math.pi, 6) % round(math.pi, 6))
    if len(different) < LEAST_ANGLES or not ((cos * sin).min() < -1e-9 and (cos * sin).max() > 1e-9):
        wanted = f"at least {LEAST_ANGLES} angles that differ by more than half turns"
        raise ZooError(f"the exponent needs {wanted}, with cos t sin t of both signs")
    if not y.any():
        return UNKNOWN
    y = y / np.abs(y).mean()
    norm = np.sqrt(1 + 2 * cosine * cos * sin)
    along_u, along_v = (cos + cosine * sin) / norm, (sin + cosine * cos) / norm
    both = along_u * along_v

    def terms(p: float) -> np.ndarray:
        return np.stack([np.abs(along_u) ** p, np.abs(along_v) ** p, np.sign(both) * np.abs(both) ** (p / 2)], 1)

    def coefficients(p: float) -> np.ndarray:
        return np.linalg.lstsq(terms(p), y, rcond=None)[0]

    def error(p: float) -> float:
        return float(np.square(terms(p) @ coefficients(p) - y).sum())

    start = min(EXPONENTS, key=error)
    step = EXPONENTS[1] - EXPONENTS[0]
    found = optimize.minimize_scalar(
        error, bounds=(max(start - step, 1e-3), start + step), method="bounded", options={"xatol": 1e-9}
    )
    p, h = float(found.x), 1e-5
    along_p = (terms(p + h) - terms(p - h)) / (2 * h) @ coefficients(p)
    left = along_p - terms(p) @ np.linalg.lstsq(terms(p), along_p, rcond=None)[0]
    dof = len(t) - 4
    half = float(stats.t.ppf(0.975, dof) * np.sqrt(error(p) / dof / np.square(left).sum()))
    return Estimate(p, p - half, p + half, len(t))
