"""What the toy models share: many independent networks in one module, each judged on its own."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.metrics import FVU, SeedMeans
from zoo.models.optimizers import AdamLinear
from zoo.models.zoo_module import ZooModule
from zoo.precision import at_least_float32


class ToyModule(ZooModule, ABC):
    """Trains `n_seeds` networks side by side: every parameter has them, or as many of each, along its first dimension.

    The loss is the sum over seeds, so with Adam each network trains as it would alone, on data of its own. Batches hold
    the seeds' vectors in equal parts, one seed after the other. Validation logs the loss of the mean and of the best
    seed, and the FVU of all outputs; `seed_losses` keeps every seed's.

    Args:
        n_seeds: Networks.
        optimizer: Optimizer and learning-rate schedule; its learning rate is by default 1e-2.

    Raises:
        ZooError: If there is no network.
    """

    batches = "feature vectors"
    seed_losses: Tensor  # of the last validation, (n_seeds,) float64

    def __init__(self, n_seeds: int, optimizer: AdamLinear) -> None:
        super().__init__()
        if n_seeds < 1:
            raise ZooError(f"n_seeds is {n_seeds}; it must be at least 1")
        self.n_seeds, self.optimizer = n_seeds, optimizer
        self.fvu, self.means = FVU(), SeedMeans(n_seeds)
        self.seed_losses = torch.full((n_seeds,), torch.nan, dtype=torch.float64)

    @abstractmethod
    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs (n_seeds, B, n_out) and hidden activations (n_seeds, B, n_hidden)."""

    @abstractmethod
    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """What the outputs should be, (n_seeds, B, n_out)."""

    @abstractmethod
    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Loss of every seed's outputs y (n_seeds, B, n_out), (n_seeds,)."""

    def per_seed(self, rows: Tensor) -> Tensor:
        """A batch's rows (n_seeds * B, ...) as (n_seeds, B, ...)."""
        return rows.unflatten(0, (self.n_seeds, len(rows) // self.n_seeds))

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (n_seeds * B, n_out) and hidden activations for inputs (n_seeds * B, d_in), seed after seed."""
        y, hidden = self.outputs({"x": x})
        return y.flatten(0, 1), hidden.flatten(0, 1)

    def tokens_per_batch(self, batch: dict[str, Tensor]) -> int:
        """Vectors on this rank, those of all seeds."""
        return len(batch["row"])

    def configure_optimizers(self) -> Any:
        """Adam without weight decay."""
        lr = 1e-2 if self.optimizer.learning_rate is None else self.optimizer.learning_rate
        trained = [p for p in self.net.parameters() if p.requires_grad]
        return self.optimizer.configure([{"params": trained, "lr": lr}], self.total_steps())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Sum of the seeds' losses; their mean is logged."""
        losses = self.losses(batch, at_least_float32(self.outputs(batch)[0]))
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss", losses.detach().mean(), sync_dist=True)
        return losses.sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Accumulate the metrics; what the outputs should be is returned as `x`."""
        y, hidden = self.outputs(batch)
        y, target = at_least_float32(y), self.targets(batch)
        if y.shape[1]:
            self.means.update(self.losses(batch, y), y.shape[1])
        self.judge(batch, y, target)
        found = {"x": target.flatten(0, 1), "x_hat": y.flatten(0, 1), "codes": hidden.flatten(0, 1)}
        self.fvu.update(found["x_hat"], found["x"])
        return found

    def judge(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate metrics of a toy's own, of outputs and targets (n_seeds, B, n_out)."""

    def log_judgement(self, split: str) -> None:
        """Log metrics of a toy's own, and start anew."""

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """As in validation."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self._log_metrics("test")

    def clip_by_norm(self, largest: float) -> None:
        """Clip every seed's gradient by its own norm."""
        by_seed = [p.grad.view(self.n_seeds, -1) for p in self.net.parameters() if p.grad is not None]
        norms = torch.stack([g.norm(dim=1) for g in by_seed]).norm(dim=0)  # (n_seeds,)
        for g in by_seed:
            g.mul_((largest / norms.clamp(min=largest)).unsqueeze(1))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add every seed's loss in the last validation."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["seed_losses"] = self.seed_losses.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the losses of an earlier run."""
        super().on_load_checkpoint(checkpoint)
        self.seed_losses = checkpoint.get("seed_losses", self.seed_losses)

    def _log_metrics(self, split: str) -> None:
        self.seed_losses = self.means.compute().reshape(self.n_seeds)  # torchmetrics squeezes one seed
        self.means.reset()
        values = {"loss": self.seed_losses.mean(), "loss_best": self.seed_losses.min(), "fvu": self.fvu.compute()}
        self.fvu.reset()
        self.log_dict({f"{split}/{name}": value.float() for name, value in values.items()})
        self.log_judgement(split)
