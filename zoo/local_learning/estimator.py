"""`local_learning_coefficient`: the estimate, its interval, and its refusal."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zoo import estimates
from zoo.errors import ZooError
from zoo.estimates import UNKNOWN, Estimate
from zoo.local_learning import diagnostics
from zoo.local_learning.chains import Checkpoint, Sampler, run_chains
from zoo.local_learning.curvature import largest_curvature
from zoo.local_learning.diagnostics import Diagnostics, Limits
from zoo.local_learning.hmc import HMC, MOST_PARAMETERS
from zoo.local_learning.losses import Loss, Losses, Target
from zoo.local_learning.samplers import SGLD


@dataclass(frozen=True)
class LocalLearningCoefficient:
    """An estimate of the local learning coefficient.

    Args:
        unchecked: The estimate with its 95 % interval over chains, whatever the diagnostics say.
        chains: One estimate per chain, (C,) float64; NaN for a chain that is left out.
        problems: Every failed diagnostic, in one line each. With any, the estimate is refused.
        notes: What else a reader should know, in one line each, such as chains that are left out.
        diagnostics: The diagnostics.
        center_loss: Loss at w* on all data, in nats.
        curvature: Largest curvature h of the loss, see `zoo.local_learning.curvature`; NaN if the step size was given.
        step_size: ε, for HMC that of the leapfrogs after burn-in.
        n: Number of data points; None for a population loss.
        n_beta: nβ.
        localization: γ.
        prior_precision: ρ.
        n_parameters: Number d of parameters that move.
        traces: Losses at all steps, burn-in included, (burn_in + steps, C) float64, in nats.
        burn_in: Number of first steps that the estimate leaves out.
    """

    unchecked: Estimate
    chains: np.ndarray
    problems: list[str]
    notes: list[str]
    diagnostics: Diagnostics
    center_loss: float
    curvature: float
    step_size: float
    n: int | None
    n_beta: float
    localization: float
    prior_precision: float
    n_parameters: int
    traces: np.ndarray
    burn_in: int

    @property
    def trustworthy(self) -> bool:
        """Whether no diagnostic failed."""
        return not self.problems

    @property
    def estimate(self) -> Estimate:
        """The estimate with its 95 % interval over chains; `UNKNOWN` (NaN, printed as "-") if a diagnostic failed."""
        return self.unchecked if self.trustworthy else UNKNOWN

    def __str__(self) -> str:
        said = f"n = {self.n}, nβ = {self.n_beta:.4g}, γ = {self.localization:g}, ε = {self.step_size:.3g}"
        if self.trustworthy:
            return f"{self.estimate} ({said})"
        return f"refused, because {'; '.join(self.problems)}; unchecked: {self.unchecked} ({said})"


def local_learning_coefficient(
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
    prior_precision: float = 0.0,
    parameters: Iterable[str] | None = None,
    start: Literal["center", "gaussian"] = "center",
    anneal: bool = False,
    sensitivity: bool = False,
    limits: Limits | None = None,
    seed: int = 0,
    chains_at_once: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
) -> LocalLearningCoefficient:
    """Estimate the local learning coefficient λ of a model at its parameters w*.

    λ̂ = nβ (E[L(w)] - L(w*)), where w is sampled from the density exp(-nβ L(w) - γ/2 |w - w*|² - ρ/2 |w|²). The whole
    convention is in the docstring of `zoo.local_learning`::

        result = zoo.local_learning_coefficient(
            model,
            lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
            (x, y),  # tensors of n rows
            sampler=SGLD(steps=2000, burn_in=1000),
        )
        print(result)  # the estimate, or why it is refused
        result.estimate.mean, result.estimate.low, result.estimate.high  # NaN if refused
        result.unchecked  # the number in any case
        result.problems, result.notes, result.diagnostics, result.traces

    For a language model, a row of `data` is a context. State what a data point is: with n = contexts x tokens per
    context, `loss` is the mean per token; with n = contexts (the default), it is the mean over contexts of the sum over
    their tokens. The same posterior is meant by both, and nβ differs only by the factor ln n.

    With a function K(w) of the parameters in place of a loss on data, such as a population loss, `data` is None, the
    loss is called as `loss(model, None)`, and `n_beta` must be given.

    Args:
        model: Any module in eval mode, at w*. It is neither changed nor moved, and chains run on its device, with
            parameters in its type, float32 or float64. Buffers stay as they are.
        loss: Function of the model and a batch. It returns the mean loss per data point, a scalar in nats, and must be
            a mean over the rows of the batch in which all count equally. `torch.func.vmap` computes it for all chains.
        data: A tensor, or a tuple, list or dict of tensors, whose first dimension runs over the rows; a batch has the
            same structure. None for a population loss.
        sampler: `SGLD()` (the default), `RMSPropSGLD()` or `HMC()`, with step size, burn-in and number of steps.
        chains: Number of chains, at least 2.
        batch_size: Rows of a batch. Every chain draws its own rows at every step, with replacement. By default a batch
            is all data. HMC always uses all data.
        n: Number of data points; by default the number of rows.
        n_beta: nβ; by default n / ln n (Watanabe 2013).
        localization: γ, the strength with which chains are held near w*.
        prior_precision: ρ, the precision of a Gaussian prior around 0. 0 is a flat prior.
        parameters: Names of the parameters that move, or patterns such as "blocks.0.*"; the others stay at w*. By
            default all move, including those that do not require a gradient.
        start: Where chains start: all at w*, or at draws of the Gaussian factor of the density, which requires that
            γ + ρ > 0. Chains that start apart show in R-hat whether they find one another.
        anneal: Whether nβ rises geometrically from 1 to its value during the first two thirds of burn-in.
        sensitivity: Whether to repeat the estimate with half the step size (twice the steps) and with twice the
            localization, which takes four times as long. With HMC, only the localization is changed.
        limits: Limits of the diagnostics.
        seed: Seed of starts, batches and noise. The same seed on the same device gives the same chains.
        chains_at_once: Number of chains that `vmap` computes together; fewer need less memory. With 1, chains are
            computed one by one without `vmap`.
        checkpoint: File for interrupted chains. If it exists, the chains continue from it bit for bit.
        checkpoint_every: Number of steps between two writes of this file.

    Raises:
        ZooError: If an argument does not fit, the model is in training mode, the loss is not a scalar, draws random
            numbers or is not a mean over rows, or the loss of all chains is not finite.
    """
    sampler, limits = sampler or SGLD(), limits or Limits()
    losses = Losses(model, loss, data, parameters, chains_at_once)
    n, n_beta = _sizes(losses.rows, n, n_beta, batch_size, chains)
    if isinstance(sampler, HMC) and len(losses.center) > MOST_PARAMETERS:
        raise ZooError(f"HMC is for up to {MOST_PARAMETERS} parameters: {len(losses.center)} move here; use SGLD")
    if localization < 0 or prior_precision < 0:
        raise ZooError(f"localization is {localization} and prior_precision {prior_precision}: both must be 0 or more")
    if start == "gaussian" and not localization + prior_precision:
        raise ZooError('start="gaussian" requires a localization or a prior_precision above 0')
    target = Target(losses, n_beta, localization, prior_precision)
    device, center = losses.center.device, losses.center
    generator = torch.Generator(device).manual_seed(seed)

    batches = batch_size if batch_size and not isinstance(sampler, HMC) else None
    with losses.attention():
        of_rows, center_loss, slope = _at_center(losses, batches)
        probe = torch.arange(losses.rows, device=device)[: 4 * batches] if batches and losses.rows else None
        curvature = math.nan if sampler.step_size else float(largest_curvature(target, generator, probe))
        steepest = n_beta * curvature + target.precision
        if not steepest:
            raise ZooError("the loss is constant around the parameters, and nothing else holds them: set step_size")
        step_size = sampler.step_size or sampler.chosen_step_size(steepest)
        W = center.expand(chains, -1).clone()
        if start == "gaussian":
            noise = torch.randn(W.shape, generator=generator, dtype=W.dtype, device=device)
            W = localization / target.precision * center + noise / target.precision**0.5
        tensors = [center, *losses.fixed.values(), *(tree_leaves(losses.data) if losses.rows else ())]
        near = center + 1e-3 * (1 + center.abs()) * torch.linspace(
            -1, 1, len(center), dtype=center.dtype, device=device
        )
        index = None if batches is None else torch.arange(batches, device=device)
        told = [f"{center_loss:.5g}", f"{float(losses.values(near[None], index)):.5g}"]  # identify the loss
        chosen = [sampler, chains, batches, n, n_beta, localization, prior_precision, losses.names, start, anneal, seed]
        chosen += told
        file = Checkpoint(checkpoint, checkpoint_every, f"{chosen} {_digest(tensors)}")
        state, traces = run_chains(target, sampler, W, step_size, generator, batches, of_rows, anneal, file)
    everything = traces.double().cpu().numpy()
    draws = n_beta * (everything[sampler.burn_in :] - center_loss)
    finite = np.isfinite(everything).all(0)
    if finite.sum() < 2:
        few = "only one" if finite.any() else "none"
        raise ZooError(f"the loss of {few} of the {chains} chains is finite: use a step size below {step_size:.3g}")
    per_chain = np.where(finite, draws.mean(0), np.nan)
    value = estimates.mean(per_chain[finite])
    kept = draws[:, finite]
    gain = n_beta * slope**2 / (2 * steepest / n_beta) if slope else 0.0
    found = _diagnostics(sampler, state, kept, finite, len(center), gain)
    if sensitivity:
        again: dict[str, Any] = {
            "chains": chains,
            "batch_size": batch_size,
            "n": n,
            "n_beta": n_beta,
            "localization": localization,
            "prior_precision": prior_precision,
            "parameters": parameters,
            "start": start,
            "anneal": anneal,
            "seed": seed + 1,
            "chains_at_once": chains_at_once,
        }

        def change(sampler: SGLD | HMC, **other: Any) -> Estimate:
            varied = local_learning_coefficient(model, loss, data, sampler=sampler, **(again | other))
            both = varied.chains - per_chain
            return estimates.mean(both[np.isfinite(both)])

        fixed = replace(sampler, step_size=step_size)
        found = replace(found, double_localization=change(fixed, localization=2 * localization))
        if not isinstance(sampler, HMC):
            slow = replace(fixed, step_size=step_size / 2, steps=2 * sampler.steps, burn_in=2 * sampler.burn_in)
            found = replace(found, half_step_size=change(slow))
    notes = []
    if not finite.all():
        notes.append(
            f"left out because their loss is not finite: chains {', '.join(map(str, np.flatnonzero(~finite)))}"
        )
    if found.gradient_gain > 0.1 * abs(value.mean):
        notes.append(
            f"the parameters are not at a minimum: a step along the gradient lowers nβ L by about {gain:.3g}, which is "
            "missing in the estimate"
        )
    explored = 2 / (step_size * target.precision) if target.precision else math.inf
    if type(sampler) is SGLD and sampler.burn_in < explored:
        notes.append(
            f"burn-in is shorter than the 2 / (ε (γ + ρ)) = {explored:.3g} steps that SGLD needs in flat directions: "
            "check that a longer one gives the same"
        )
    return LocalLearningCoefficient(
        unchecked=value,
        chains=per_chain,
        problems=found.problems(value, int((~finite).sum()), chains, limits),
        notes=notes,
        diagnostics=found,
        center_loss=center_loss,
        curvature=curvature,
        step_size=float(state["step_size"]),
        n=n,
        n_beta=n_beta,
        localization=localization,
        prior_precision=prior_precision,
        n_parameters=len(center),
        traces=everything,
        burn_in=sampler.burn_in,
    )


def _sizes(
    rows: int | None, n: int | None, n_beta: float | None, batch_size: int | None, chains: int
) -> tuple[int | None, float]:
    """Check the sizes, and return n and nβ."""
    if chains < 2:
        raise ZooError(f"chains is {chains}: an interval needs at least 2")
    if rows is None and batch_size is not None:
        raise ZooError("batch_size is given without data")
    if batch_size is not None and not 1 <= batch_size <= (rows or 0):
        raise ZooError(f"batch_size is {batch_size}: it must be between 1 and the {rows} rows of the data")
    n = rows if n is None else n
    if n_beta is None:
        if n is None:
            raise ZooError("n_beta must be given for a loss without data")
        if n < 2:
            raise ZooError(f"n is {n}: n / ln n needs at least 2 data points")
        n_beta = n / math.log(n)
    if not (n_beta > 0 and math.isfinite(n_beta)):
        raise ZooError(f"n_beta is {n_beta}: it must be above 0")
    return n, float(n_beta)


def _at_center(losses: Losses, batch_size: int | None) -> tuple[Tensor | None, float, float]:
    """The loss of every row if there are batches, the loss of all data, and the norm of its gradient."""
    center = losses.center[None]
    try:
        if batch_size is None:
            values, gradients = losses.gradients(center)
            of_rows, value, gradient = None, values[0], gradients[0]
        else:
            of_rows = losses.of_rows(batch_size)
            value, gradient = of_rows.mean(), torch.zeros_like(losses.center)
            assert losses.rows
            for index in torch.arange(losses.rows, device=center.device).split(batch_size):
                values, gradients = losses.gradients(center, index)
                gradient += gradients[0] * (len(index) / losses.rows)
                mean = of_rows[index].mean()
                if not torch.isclose(values[0], mean, rtol=1e-3, atol=1e-5):
                    raise ZooError(
                        f"the loss of {len(index)} rows is {float(values[0]):.6g}, and the mean of the losses of each "
                        f"is {float(mean):.6g}: the loss must be a mean over rows"
                    )
    except (RuntimeError, IndexError) as error:
        raise ZooError(f"the loss cannot be computed: {error}") from error
    if not bool(value.isfinite()):
        raise ZooError(f"the loss at the parameters of the model is {float(value)}")
    return of_rows, float(value), float(gradient.norm())


def _diagnostics(
    sampler: Sampler, state: dict[str, Tensor], draws: np.ndarray, finite: Any, d: int, gain: float
) -> Diagnostics:
    """The diagnostics of the chains that are kept, whose draws are (T, C)."""

    def mean(name: str) -> float:
        return float(state[name].double().cpu().numpy()[finite].mean()) / sampler.steps if name in state else math.nan

    heat = mean("heat")
    return Diagnostics(
        drift=diagnostics.drift(draws),
        r_hat=diagnostics.r_hat(draws),
        effective=diagnostics.effective_draws(draws),
        acceptance=mean("accepted"),
        step_size_bias=mean("bias"),
        equipartition=mean("virial") / (d + heat / 4),
        lower=float((draws < 0).mean()),
        gradient_gain=gain,
    )


def _digest(tensors: list[Tensor]) -> str:
    """A digest of tensors, which tells whether a file belongs to the same model and data."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
