"""The local learning coefficients of networks that are trained side by side, by chains of all of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo import estimates
from zoo.errors import ZooError
from zoo.local_learning.chains import Checkpoint, run_chains
from zoo.local_learning.curvature import largest_curvature
from zoo.local_learning.diagnostics import Limits
from zoo.local_learning.estimator import LocalLearningCoefficient, _diagnostics, _sizes
from zoo.local_learning.hmc import HMC
from zoo.local_learning.losses import Loss, Losses, Target
from zoo.local_learning.samplers import SGLD


class LossesSideBySide(Losses):
    """The losses of S networks in one module, (P, S), that share no parameters; see `Losses`.

    Raises:
        ZooError: If the first dimension of a parameter is not a multiple of S.
    """

    loss_dimensions = 1

    def __init__(self, model: nn.Module, loss: Loss, data: Any, parameters: Iterable[str] | None) -> None:
        super().__init__(model, loss, data, parameters, None)
        found = self.values(self.center[None], None if self.rows is None else torch.zeros(1, dtype=torch.int64))
        if found.ndim != 2:
            raise ZooError("the loss is one number; networks side by side have one each")
        self.n_networks = S = found.shape[1]
        owners = []
        for name, shape, size in zip(self.names, self.shapes, self.sizes, strict=True):
            if not shape or shape[0] % S:
                raise ZooError(
                    f"{name} has shape {list(shape)}; its first dimension must be a multiple of {S} networks"
                )
            owners.append(torch.arange(S).repeat_interleave(size // S))
        self.owner = torch.cat(owners).to(self.center.device)  # network of every parameter, (d,)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums (P, S) over the parameters of every network of values (P, d)."""
        return values.new_zeros(len(values), self.n_networks).index_add_(1, self.owner, values)

    def spread(self, each: Tensor) -> Tensor:
        """Return what belongs to every network (P, S) for all its parameters, (P, d)."""
        return each[:, self.owner]


def local_learning_coefficients(
    model: nn.Module,
    loss: Loss,
    data: Any = None,
    *,
    sampler: SGLD | HMC | None = None,
    chains: int = 8,
    batch_size: int | None = None,
    n: int | None = None,
    n_beta: float | None = None,
    localization: float = 1.0,
    parameters: Iterable[str] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> list[LocalLearningCoefficient]:
    """Estimate the local learning coefficient of each of S networks in one module.

    No network's loss may depend on the parameters of another, as for the seeds of a `ToyModule`. Chains of all networks
    advance together, which takes hardly longer than those of one, and every network gets the estimate of its own
    chains. The convention is that of `zoo.local_learning`. HMC accepts or rejects for every network alone.

    Args:
        model: The module in eval mode, at w*. The first dimension of every parameter that moves is S, or a multiple of
            S in which the sub-networks of a network follow one another.
        loss: Function of the model and a batch that returns the mean loss per data point of every network, (S,).
        data: Tensors whose first dimension runs over the rows, or None, see `local_learning_coefficient`.
        sampler: `SGLD()` (the default), `RMSPropSGLD()` or `HMC()`. All networks have the same step size.
        chains: Number of chains of every network, at least 2.
        batch_size: Rows of a batch; by default a batch is all data.
        n: Number of data points of every network; by default the number of rows.
        n_beta: nβ; by default n / ln n.
        localization: γ.
        parameters: Names of the parameters that move, or patterns. By default all move.
        limits: Limits of the diagnostics.
        seed: Seed of batches and noise.

    Raises:
        ZooError: If an argument does not fit, the losses are not one per network, or the first dimension of a parameter
            is not a multiple of S.
    """
    sampler, limits = sampler or SGLD(), limits or Limits()
    losses = LossesSideBySide(model, loss, data, parameters)
    n, n_beta = _sizes(losses.rows, n, n_beta, batch_size, chains)
    if localization < 0:
        raise ZooError(f"localization is {localization}: it must be 0 or more")
    target, center = Target(losses, n_beta, localization, 0.0), losses.center
    generator = torch.Generator(center.device).manual_seed(seed)
    batches = None if isinstance(sampler, HMC) else batch_size
    of_rows = losses.of_rows(batches) if batches else None  # (rows, S)
    values, gradients = losses.gradients(center[None])
    at_center = (values[0] if of_rows is None else of_rows.mean(0)).double()
    if not bool(at_center.isfinite().all()):
        raise ZooError(f"the losses at the parameters of the networks are {[round(x, 4) for x in at_center.tolist()]}")
    if batches and of_rows is not None:
        rows = torch.arange(batches, device=center.device)
        if not torch.allclose(losses.values(center[None], rows)[0], of_rows[rows].mean(0), rtol=1e-3, atol=1e-5):
            raise ZooError("the loss of a batch is not the mean of the losses of its rows: it must be a mean over rows")
    probe = torch.arange(losses.rows or 0, device=center.device)[: 4 * batches] if batches else None
    curvature = float(largest_curvature(target, generator, probe)) if sampler.step_size is None else math.nan
    steepest = n_beta * curvature + localization
    if not steepest:
        raise ZooError("the losses are constant around the parameters, and nothing else holds them: set step_size")
    step_size = sampler.step_size or sampler.chosen_step_size(steepest)
    W = center.expand(chains, -1).clone()
    state, traces = run_chains(
        target, sampler, W, step_size, generator, batches, of_rows, False, Checkpoint(None, 1, "")
    )
    gains = losses.total(gradients.square())[0].double() * n_beta / (2 * (curvature + localization / n_beta))
    shared: dict[str, Any] = {
        "n": n,
        "n_beta": n_beta,
        "localization": localization,
        "prior_precision": 0.0,
        "curvature": curvature,
    }
    shared |= {"step_size": float(state["step_size"]), "burn_in": sampler.burn_in}
    found, everything = [], traces.double().cpu().numpy()
    for s, (center_loss, gain) in enumerate(zip(at_center.tolist(), gains.tolist(), strict=True)):
        own: dict[str, Tensor] = {
            name: state[name][:, s] for name in ("heat", "bias", "virial", "accepted") if name in state
        }
        draws = n_beta * (everything[sampler.burn_in :, :, s] - center_loss)
        finite = np.isfinite(draws).all(0)
        if finite.sum() < 2:
            step = shared["step_size"]
            raise ZooError(
                f"fewer than 2 chains of network {s} have finite losses: use a smaller step size than {step:.3g}"
            )
        value, d = estimates.mean(draws.mean(0)[finite]), int((losses.owner == s).sum())
        diagnosed = _diagnostics(sampler, own, draws[:, finite], finite, d, gain)
        found.append(
            LocalLearningCoefficient(
                unchecked=value,
                chains=np.where(finite, draws.mean(0), np.nan),
                problems=diagnosed.problems(value, int((~finite).sum()), chains, limits),
                notes=[],
                diagnostics=diagnosed,
                center_loss=center_loss,
                n_parameters=d,
                traces=everything[:, :, s],
                **shared,
            )
        )
    return found
