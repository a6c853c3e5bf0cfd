"""The base class of modules that reconstruct vectors: it initialises them from data and evaluates them."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from zoo.errors import ZooError
from zoo.metrics import ReconstructionMetrics
from zoo.models.vector_batches import as_evaluated, as_vectors, first_vectors
from zoo.models.zoo_module import RESTORED, ZooModule
from zoo.protocols import datamodule, offered


class ReconstructionModule(ZooModule, ABC):
    """A module that reconstructs vectors from codes, and is evaluated on held-out vectors and on training vectors.

    Batches are of the kind `"vectors"` that `zoo.protocols` describes. They come from a datamodule, or from any loader
    of tensors that is passed to `trainer.fit`. Metrics of held-out vectors are named `val/...` or `test/...`. Metrics
    of vectors that are also trained on are named `val_train/...` or `test_train/...`. Every evaluation step returns
    `x`, `x_hat` and `codes` for callbacks.

    Before training, and before DDP wraps the module, `initialise` is called once with vectors of the training data.

    Args:
        d_sae: Number of codes K.
    """

    batches = "vectors"
    fitted: Tensor  # () bool, whether `initialise` has been called, in this run or in the run that it resumes

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.n_codes = d_sae
        self.register_buffer("fitted", torch.tensor(RESTORED.get() is not None))
        self.held_out, self.trained_on = ReconstructionMetrics(d_sae), ReconstructionMetrics(d_sae)

    @abstractmethod
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (B, d_in) and the codes (B, K) of data (B, d_in)."""

    @property
    def signed_codes(self) -> bool:
        """Whether codes may be negative; false if the network has no `signed_codes`."""
        return bool(offered(self.net, "signed_codes"))

    @abstractmethod
    def initialise(self, sample: Tensor) -> None:
        """Fit the parameters that depend on the mean and spread of the data to vectors (n, d_in), and set `fitted`."""

    def initialise_from_data(self) -> None:
        """Call `initialise` with vectors of the training data, unless it has been called before."""
        if not self.fitted:
            sample = first_vectors(self.trainer).to(self.device)
            if sample.shape[1] != self.net.d_in:
                raise ZooError(f"the data have {sample.shape[1]} dimensions, but d_in of the model is {self.net.d_in}")
            self.initialise(sample)

    def check_data(self, d_in: int) -> None:
        """Refuse data whose width is not `d_in`; log notes.

        The notes tell if there are at least as many codes as training rows, and if the weights come from other data.

        Raises:
            ZooError: If the width of the data is not `d_in`.
        """
        data = datamodule(self.trainer)
        width, train_rows = offered(data, "d_in"), offered(data, "train_rows")
        if width not in (None, d_in):
            raise ZooError(f"the data have {width} dimensions, but d_in of the model is {d_in}")
        part = RESTORED.get()
        told = self.started_from if part is None else part.get("provenance") or {}
        of_model, of_site = offered(data, "model_name"), offered(data, "hook_name")
        for key, what, now in (("model", "model", of_model), ("hook_name", "site", of_site)):
            before = told.get(key)
            if None not in (before, now) and before != now:
                rank_zero_info(f"note: the weights were trained on {what} {before}, and the data are of {what} {now}")
        n_rows = 0 if train_rows is None else len(train_rows)
        if self.trainer.state.fn == "fit" and 0 < n_rows <= self.n_codes:
            rank_zero_info(
                f"note: there are {self.n_codes:,} atoms for {n_rows:,} training rows. A dictionary whose atoms are "
                "these rows has FVU 0 at L0 1, so a small error on training rows proves nothing; use held-out rows"
            )

    def tokens_per_batch(self, batch: Any) -> int:
        """Number of vectors in the batch of this process."""
        return len(as_vectors(batch)["x"])

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Accumulate the metrics, and return `x`, `x_hat` and `codes`."""
        batch = as_evaluated(batch)
        x_hat, codes = self.reconstruct(batch["x"])
        self.update_metrics(batch, x_hat, codes)
        return {"x": batch["x"], "x_hat": x_hat, "codes": codes}

    def update_metrics(self, batch: dict[str, Tensor], x_hat: Tensor, codes: Tensor) -> None:
        """Add reconstructions (B, d_in) and codes (B, K) to the metrics of held-out and of other vectors."""
        x, held_out = batch["x"], batch["held_out"]
        for part, metrics in ((held_out, self.held_out), (~held_out, self.trained_on)):
            if part.all():
                metrics.update(x_hat, x, codes, batch["weight"])
            else:
                metrics.update(x_hat[part], x[part], codes[part], batch["weight"][part])

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The same as `validation_step`, on the test split."""
        return self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self.log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics over all ranks."""
        self.log_metrics("test")

    def log_metrics(self, split: str) -> None:
        """Log metrics of held-out vectors as `split/...` and of other vectors as `split_train/...`; reset both."""
        for name, metrics in ((split, self.held_out), (f"{split}_train", self.trained_on)):
            values = metrics.compute()
            metrics.reset()
            if values.pop("rows"):
                self.log_dict({f"{name}/{k}": v.to(torch.float32) for k, v in values.items()})
