"""Stochastic gradient Langevin dynamics, with and without a preconditioner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.local_learning.losses import Target

State = dict[str, Tensor]


@dataclass(frozen=True)
class SGLD:
    """Stochastic gradient Langevin dynamics (Welling and Teh 2011), as Lau et al. (2023, arXiv:2308.12108) use it.

    w <- w - ε/2 ∇U(w) + √ε ξ, where ξ is standard normal, and ∇U is that of a batch if there are batches.

    A direction in which the loss is flat is explored in about 2 / (ε (γ + ρ)) steps. No diagnostic sees directions that
    no chain has reached: reduced-rank regression, where λ is 8, gave 7.1 after a burn-in of 800 steps, with all
    diagnostics in order, and 7.9 after 4,000. A note tells when burn-in is shorter.

    On a quadratic loss it samples a variance that is 1 / (1 - ε a/4) times too large in a direction in which U has the
    curvature a. `LocalLearningCoefficient.diagnostics.step_size_bias` measures what this adds.

    Args:
        step_size: ε. By default it is `share` / (nβ h + γ + ρ), where h is the largest curvature of the loss, see
            `zoo.local_learning.curvature`.
        steps: Number of steps after burn-in. The loss is recorded at each.
        burn_in: Number of steps before them, which are left out of all results.
        share: ε a of the steepest direction, if the step size is chosen.
    """

    step_size: float | None = None
    steps: int = 2000
    burn_in: int = 1000
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.step_size is not None and not self.step_size > 0:
            raise ZooError(f"step_size is {self.step_size}: it must be above 0")
        if self.steps < 4 or self.burn_in < 0:
            raise ZooError(f"steps is {self.steps} and burn_in {self.burn_in}: they must be at least 4 and 0")

    def chosen_step_size(self, steepest: float) -> float:
        """Return ε for the largest curvature of U."""
        return self.share / steepest

    def start(self, target: Target, W: Tensor, step_size: float) -> State:
        """Return the state of chains that start at W, (C, d)."""
        zero = target.losses.total(torch.zeros_like(W))
        sums = {name: zero.clone() for name in ("heat", "bias", "virial")}
        return {"W": W, "step_size": W.new_tensor(step_size), **sums}

    def advance(
        self,
        state: State,
        target: Target,
        generator: torch.Generator,
        index: Tensor | None,
        temper: float,
        burning: bool,
        t: int,
    ) -> Tensor:
        """Make one step of all chains, and return the losses (C,) before it."""
        W, step = state["W"], state["step_size"]
        values, gradients = target.gradients(W, index, temper)
        metric = self.metric(state, gradients, target, burning)
        moved = gradients * metric
        if not burning:
            away, total = W - target.losses.center, target.losses.total
            heat = step * total(moved * gradients)
            pull = target.localization * away + target.prior_precision * W
            state["heat"] += heat
            state["bias"] += (heat - step * total(moved * pull)) / 8
            state["virial"] += total(away * gradients)
        noise = torch.randn(W.shape, generator=generator, dtype=W.dtype, device=W.device)
        W.sub_(moved.mul_(step / 2)).add_(noise.mul_((step * metric) ** 0.5))
        return values

    def metric(self, state: State, gradients: Tensor, target: Target, burning: bool) -> Tensor | float:
        """Return the preconditioner G, (C, d), or 1."""
        return 1.0


@dataclass(frozen=True)
class RMSPropSGLD(SGLD):
    """SGLD with the diagonal preconditioner of RMSProp (Li et al. 2016, arXiv:1512.07666).

    w <- w - ε/2 G ∇U(w) + √(ε G) ξ with G = 1 / (√V + δ). V is the running mean of the squares of ∇U. It is adapted
    during burn-in and then fixed, so that the term with the derivative of G vanishes.

    Args:
        step_size: ε. By default it is `share` / √(nβ h + γ + ρ), because V is close to the curvature of U.
        steps: Number of steps after burn-in.
        burn_in: Number of steps before them.
        share: ε G a of the steepest direction, if the step size is chosen.
        decay: Weight of the earlier mean in V.
        damping: δ. By default √(γ + ρ), or 10⁻³ if both are 0.
    """

    decay: float = 0.99
    damping: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ZooError(f"decay is {self.decay}: it must be at least 0 and below 1")
        if self.burn_in < 1:
            raise ZooError("burn_in is 0: RMSPropSGLD adapts its preconditioner during burn-in")

    def chosen_step_size(self, steepest: float) -> float:
        """Return ε for the largest curvature of U."""
        return self.share / steepest**0.5

    def metric(self, state: State, gradients: Tensor, target: Target, burning: bool) -> Tensor:
        """Return the preconditioner G, (C, d)."""
        if burning:
            squares = gradients.square()
            state["V"] = squares.lerp(state["V"], self.decay) if "V" in state else squares
        damping = self.damping if self.damping is not None else target.precision**0.5 or 1e-3
        return 1 / (state["V"].sqrt() + damping)
