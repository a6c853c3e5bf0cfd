"""What every module that reconstructs its input shares: how it is judged."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from zoo.errors import ZooError
from zoo.metrics import ReconstructionMetrics
from zoo.models.zoo_module import ZooModule


class ReconstructionModule(ZooModule):
    """A module with `reconstruct(x)`, judged on data it was not trained on and, beside that, on training data.

    Evaluation batches are dicts: `x` (B, d_in), `weight` (B,), and `held_out` (B,) bool. Metrics of the held-out part
    are named `val/...` (or `test/...`), those of the part that was trained on `val_train/...`. Every evaluation step
    returns `x`, `x_hat` and `codes` for callbacks.

    Args:
        d_sae: Number of codes K.
    """

    batches = "vectors"

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.n_codes = d_sae
        self.held_out, self.trained_on = ReconstructionMetrics(d_sae), ReconstructionMetrics(d_sae)

    @abstractmethod
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, d_in) and codes (B, K) of data (B, d_in)."""

    def check_data(self, data: Any, d_in: int) -> None:
        """Refuse data of another width than `d_in`; say so where the rows to fit are few enough to be the codes.

        Raises:
            ZooError: If the widths differ.
        """
        if data is not None and data.d_in != d_in:
            raise ZooError(f"the data have {data.d_in} dimensions, and the model d_in = {d_in}")
        n_rows = len(getattr(data, "train_rows", ()))
        if self.trainer.state.fn == "fit" and 0 < n_rows <= self.n_codes:
            rank_zero_info(
                f"note: {self.n_codes:,} atoms for {n_rows:,} training rows: the rows themselves are a dictionary with "
                "FVU 0 at L0 1, so a small error on them is no finding; judge by held-out rows"
            )

    def tokens_per_batch(self, batch: dict[str, Tensor]) -> int:
        """Examples on this rank."""
        return len(batch["x"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Accumulate the metrics."""
        x_hat, codes = self.reconstruct(batch["x"])
        self.update_metrics(batch, x_hat, codes)
        return {"x": batch["x"], "x_hat": x_hat, "codes": codes}

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
