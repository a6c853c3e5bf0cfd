"""Optimizers and their learning-rate schedules."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR

from zoo.errors import ZooError


@dataclass
class AdamWCosine:
    """AdamW (Loshchilov & Hutter 2019) with linear warm-up and cosine decay of the learning rate.

    Args:
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay of matrices. Vectors (biases, layer norms) have none.
        embedding_weight_decay: Decoupled weight decay of embedding rows. It is 0 by default because decay alone makes
            rows drift.
        beta1: Decay rate of the first moment.
        beta2: Decay rate of the second moment.
        warmup_steps: Number of optimizer steps of linear warm-up.
        decay_steps: Optimizer step at which the cosine decay ends. By default the end of the run.
        final_ratio: Learning rate at the end of the cosine, as a share of the peak.

    Raises:
        ZooError: If a number is out of its range.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    embedding_weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_steps: int = 100
    decay_steps: int | None = None
    final_ratio: float = 0.1

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "embedding_weight_decay", "warmup_steps", "final_ratio"):
            if getattr(self, name) < 0:
                raise ZooError(f"optimizer.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ZooError(f"optimizer.{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def factor(self, step: int, total_steps: float) -> float:
        """Return the learning rate at optimizer step `step`, as a share of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        end = self.decay_steps or total_steps
        if math.isinf(end):
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / max(1, end - self.warmup_steps))
        return self.final_ratio + (1 - self.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

    def configure(self, net: nn.Module, embeddings: Collection[str], total_steps: float) -> dict[str, Any]:
        """Return the optimizer and its per-step schedule, in the form that `configure_optimizers` returns.

        Args:
            net: Network. Its parameters that require gradients are optimized.
            embeddings: Names of parameters that get `embedding_weight_decay`.
            total_steps: Number of optimizer steps in the run. If it is infinite, the learning rate decays only if
                `decay_steps` is set.
        """
        groups: dict[float, list[nn.Parameter]] = {}
        for name, p in net.named_parameters():
            if p.requires_grad:
                matrix_decay = self.weight_decay if p.ndim >= 2 else 0.0
                decay = self.embedding_weight_decay if name in embeddings else matrix_decay
                groups.setdefault(decay, []).append(p)
        optimizer = AdamW(
            [{"params": params, "weight_decay": decay} for decay, params in groups.items()],
            lr=self.learning_rate,
            betas=(self.beta1, self.beta2),
            fused=True,
        )
        schedule = LambdaLR(optimizer, lambda step: self.factor(step, total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@dataclass
class AdamLinear:
    """Adam (Kingma & Ba 2015) with linear warm-up, a constant rate, and linear decay to 0 at the end of the run.

    Args:
        learning_rate: Learning rate between warm-up and decay. By default the module that is trained chooses it.
        warmup_steps: Number of optimizer steps of linear warm-up.
        decay_fraction: Share of the run, at its end, over which the learning rate decays to 0.
        beta1: Decay rate of the first moment.
        beta2: Decay rate of the second moment.

    Raises:
        ZooError: If a number is out of its range.
    """

    learning_rate: float | None = None
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.999

    def __post_init__(self) -> None:
        for name in ("learning_rate", "warmup_steps"):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:
                raise ZooError(f"optimizer.{name} is {value}; it must be finite and not negative")
        for name, top in (("beta1", "below 1"), ("beta2", "below 1"), ("decay_fraction", "at most 1")):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (value == 1 and top == "below 1"):
                raise ZooError(f"optimizer.{name} is {value}; it must be at least 0 and {top}")

    def factor(self, step: int, total_steps: float) -> float:
        """Return the learning rate at optimizer step `step`, as a share of the constant rate."""
        rising = (step + 1) / (self.warmup_steps + 1)
        if math.isinf(total_steps) or not self.decay_fraction:
            return min(1.0, rising)
        return min(1.0, rising, max(0.0, total_steps - step) / (self.decay_fraction * total_steps))

    def configure(self, groups: list[dict[str, Any]], total_steps: float) -> dict[str, Any]:
        """Return the optimizer and its per-step schedule, in the form that `configure_optimizers` returns.

        Args:
            groups: Parameter groups, each with its `lr`.
            total_steps: Number of optimizer steps in the run. If it is infinite, the learning rate never decays.
        """
        optimizer = Adam(groups, betas=(self.beta1, self.beta2), fused=True)
        schedule = LambdaLR(optimizer, lambda step: self.factor(step, total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
