"""The base class of the modules that train toy models: many independent networks, each with its own loss."""

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
    """Trains `n_seeds` independent networks in parallel. The first dimension of every parameter runs over the seeds.

    The first dimension may hold the same number of sub-networks for each seed, one seed after the other. The loss is
    the sum over seeds, so with Adam each network trains as it would alone, on its own data. A batch has the same number
    of vectors for each seed; the vectors of a seed are consecutive. Validation logs the mean loss over seeds, the
    smallest loss of a seed and the FVU of all outputs. `seed_losses` has the loss of every seed.

    Args:
        n_seeds: Number of independent networks.
        optimizer: Optimizer and learning-rate schedule. The default learning rate is 1e-2.

    Raises:
        ZooError: If `n_seeds` is below 1.
    """

    batches = "feature vectors"
    seed_losses: Tensor  # losses in the last validation, (n_seeds,) float64

    def __init__(self, n_seeds: int, optimizer: AdamLinear) -> None:
        super().__init__()
        if n_seeds < 1:
            raise ZooError(f"n_seeds is {n_seeds}; it must be at least 1")
        self.n_seeds, self.optimizer = n_seeds, optimizer
        self.fvu, self.means = FVU(), SeedMeans(n_seeds)
        self.seed_losses = torch.full((n_seeds,), torch.nan, dtype=torch.float64)

    @abstractmethod
    def outputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the outputs (n_seeds, B, n_out) and the hidden activations (n_seeds, B, n_hidden)."""

    @abstractmethod
    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the correct outputs, (n_seeds, B, n_out)."""

    @abstractmethod
    def losses(self, batch: dict[str, Tensor], y: Tensor) -> Tensor:
        """Return the loss of every seed, (n_seeds,), for outputs y (n_seeds, B, n_out)."""

    def per_seed(self, rows: Tensor) -> Tensor:
        """Return the rows of a batch, (n_seeds * B, ...), in the shape (n_seeds, B, ...)."""
        return rows.unflatten(0, (self.n_seeds, len(rows) // self.n_seeds))

    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs (n_seeds * B, n_out) and hidden activations for inputs (n_seeds * B, d_in), seed by seed."""
        y, hidden = self.outputs({"x": x})
        return y.flatten(0, 1), hidden.flatten(0, 1)

    def tokens_per_batch(self, batch: dict[str, Tensor]) -> int:
        """Number of vectors of all seeds on this rank."""
        return len(batch["row"])

    def configure_optimizers(self) -> Any:
        """Return Adam without weight decay."""
        lr = 1e-2 if self.optimizer.learning_rate is None else self.optimizer.learning_rate
        trained = [p for p in self.net.parameters() if p.requires_grad]
        return self.optimizer.configure([{"params": trained, "lr": lr}], self.total_steps())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the sum of the losses of all seeds; their mean is logged."""
        losses = self.training_losses(batch)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss", losses.detach().mean(), sync_dist=True)
        return losses.sum()

    def training_losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of every seed, (n_seeds,), from a batch."""
        return self.losses(batch, at_least_float32(self.outputs(batch)[0]))

    def mean_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean loss per vector of every seed, (n_seeds,); see `zoo.protocols.HasMeanLoss`."""
        return self.training_losses(batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Accumulate the metrics; return the targets as `x`, the outputs as `x_hat`, hidden activations as `codes`."""
        y, hidden = self.outputs(batch)
        y, target = at_least_float32(y), self.targets(batch)
        if y.shape[1]:
            self.means.update(self.losses(batch, y), y.shape[1])
        self.update_own_metrics(batch, y, target)
        found = {"x": target.flatten(0, 1), "x_hat": y.flatten(0, 1), "codes": hidden.flatten(0, 1)}
        self.fvu.update(found["x_hat"], found["x"])
        return found

    def update_own_metrics(self, batch: dict[str, Tensor], y: Tensor, target: Tensor) -> None:
        """Accumulate the metrics that only this toy has, from outputs and targets (n_seeds, B, n_out)."""

    def log_own_metrics(self, split: str) -> None:
        """Log the metrics that only this toy has, and reset them."""

    def reference_losses(self) -> dict[str, float]:
        """Return known losses that are logged beside the loss, as `loss_NAME`; by default there are none."""
        return {}

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """The same as `validation_step`, on the test split."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self._log_metrics("test")

    def clip_by_norm(self, largest: float) -> None:
        """Clip the gradient of every seed by its own norm."""
        by_seed = [p.grad.view(self.n_seeds, -1) for p in self.net.parameters() if p.grad is not None]
        norms = torch.stack([g.norm(dim=1) for g in by_seed]).norm(dim=0)  # (n_seeds,)
        for g in by_seed:
            g.mul_((largest / norms.clamp(min=largest)).unsqueeze(1))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the loss of every seed in the last validation."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["seed_losses"] = self.seed_losses.cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the losses of the run that is resumed."""
        super().on_load_checkpoint(checkpoint)
        self.seed_losses = checkpoint.get("seed_losses", self.seed_losses)

    def _log_metrics(self, split: str) -> None:
        self.seed_losses = self.means.compute().reshape(self.n_seeds)  # torchmetrics squeezes one seed
        self.means.reset()
        values = {"loss": self.seed_losses.mean(), "loss_best": self.seed_losses.min(), "fvu": self.fvu.compute()}
        self.fvu.reset()
        values |= {f"loss_{name}": torch.tensor(value) for name, value in self.reference_losses().items()}
        self.log_dict({f"{split}/{name}": value.float() for name, value in values.items()})
        self.log_own_metrics(split)
