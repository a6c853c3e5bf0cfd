"""The largest curvature of the loss where chains will be, from which step sizes are chosen."""

import torch
from torch import Tensor

from zoo.local_learning.losses import Target

POINTS, ITERATIONS = 4, 12
FURTHEST = 60  # halvings and doublings of the distance at which curvature is measured


def largest_curvature(target: Target, generator: torch.Generator, index: Tensor | None) -> Tensor:
    """Return the largest |eigenvalue| of the Hessian of L, at the centre and at four points around it.

    The Hessian may vanish at the centre, as that of w⁴ does. The other points therefore lie in random directions, where
    U exceeds its value at the centre by d/2, which is its mean excess if U is quadratic. Eigenvalues are found by power
    iteration. Products of the Hessian with vectors are central differences of gradients, which exist for all models.

    Args:
        target: The density.
        generator: Generator on the device of the model.
        index: Rows of the data on which the loss is measured, (B,), or None for all.
    """
    center = target.losses.center
    d = len(center)
    directions = _unit(torch.randn(POINTS, d, generator=generator, dtype=center.dtype, device=center.device))
    radius = _radius(target, directions, index)
    W = torch.cat([center[None], center + radius[:, None] * directions])
    spread = max(float(center.norm()) / d**0.5, float(radius.median()) / d**0.5, 1e-12)
    delta = torch.finfo(center.dtype).eps ** (1 / 3) * spread * d**0.5
    v = _unit(torch.randn(len(W), d, generator=generator, dtype=center.dtype, device=center.device))
    size = W.new_zeros(len(W))
    for _ in range(ITERATIONS):
        ahead, behind = (target.losses.gradients(W + sign * delta * v, index)[1] for sign in (1, -1))
        product = (ahead - behind) / (2 * delta)
        size = product.norm(dim=1)
        v = torch.where(size[:, None] > 0, product / size[:, None].clamp(min=1e-30), v)
    finite = size[size.isfinite()]
    return finite.max() if len(finite) else size.new_zeros(())


def _radius(target: Target, directions: Tensor, index: Tensor | None) -> Tensor:
    """Distances (P,) from the centre along unit directions at which U has risen by d/2."""
    center, d = target.losses.center, directions.shape[1]
    here = target.height(center[None], index)
    low, high = (torch.full((len(directions),), value, dtype=center.dtype, device=center.device) for value in (0, 1e-3))
    for _ in range(FURTHEST):
        W = center + high[:, None] * directions
        rise = target.height(W, index) - here
        below = rise < d / 2
        low, high = torch.where(below, high, low), torch.where(below, high * 2, high)
        if not below.any() or bool((high > 1e6).any()):
            break
    for _ in range(8):
        middle = (low + high) / 2
        W = center + middle[:, None] * directions
        rise = target.height(W, index) - here
        low, high = torch.where(rise < d / 2, middle, low), torch.where(rise < d / 2, high, middle)
    return low


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=1, keepdim=True)
