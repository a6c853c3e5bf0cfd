"""What every module that reconstructs its input shares: how it is judged."""

from abc import abstractmethod

import torch
from torch import Tensor

from zoo.metrics import ReconstructionMetrics
from zoo.models.zoo_module import ZooModule


class ReconstructionModule(ZooModule):
    """A module with `reconstruct(x)`, judged on data it was not trained on and, beside that, on training data.

    Evaluation batches are dicts: `x` (B, d_in), `weight` (B,), and `held_out` (B,) bool. Metrics of the held-out part
    are named `val/...` (or `test/...`), those of the part that was trained on `val_train/...`. Every evaluation step
    returns `x_hat` and `codes` for callbacks.

    Args:
        d_sae: Number of codes K.
    """

    batches = "vectors"

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.held_out, self.trained_on = ReconstructionMetrics(d_sae), ReconstructionMetrics(d_sae)

    @abstractmethod
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, d_in) and codes (B, K) of data (B, d_in)."""

    def tokens_per_batch(self, batch: dict[str, Tensor]) -> int:
        """Examples on this rank."""
        return len(batch["x"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Accumulate the metrics."""
        x_hat, codes = self.reconstruct(batch["x"])
        self.update_metrics(batch, x_hat, codes)
        return {"x_hat": x_hat, "codes": codes}

    def update_metrics(self, batch: dict[str, Tensor], x_hat: Tensor, codes: Tensor) -> None:
        """Count a batch's reconstructions (B, d_in) and codes (B, K) with the rows held out or trained on."""
        x, held_out = batch["x"], batch["held_out"]
        for part, metrics in ((held_out, self.held_out), (~held_out, self.trained_on)):
            if part.all():
                metrics.update(x_hat, x, codes, batch["weight"])
            else:
                metrics.update(x_hat[part], x[part], codes[part], batch["weight"][part])

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """As in validation."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self.log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self.log_metrics("test")

    def log_metrics(self, split: str) -> None:
        """Log what was counted, as `split/...` and `split_train/...`, and start anew."""
        for name, metrics in ((split, self.held_out), (f"{split}_train", self.trained_on)):
            values = metrics.compute()
            metrics.reset()
            if values.pop("rows"):
                self.log_dict({f"{name}/{k}": v.to(torch.float32) for k, v in values.items()})
