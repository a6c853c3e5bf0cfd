"""Callback that draws and tabulates the directions of the features of toy models."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from zoo.callbacks.feature_picture import draw_features
from zoo.callbacks.tables_and_pictures import markdown_table, show, write_table
from zoo.metrics import feature_dimensionality
from zoo.protocols import HasFeatures, require

REPRESENTED = 0.5  # norm above which a feature counts as represented


class FeatureGeometry(L.Callback):
    """Draws the directions of features, for any module with `features()` and `seed_losses`.

    `features()` returns directions (n_seeds, n_features, d_hidden). `seed_losses` is (n_seeds,), NaN before the first
    validation.

    With every checkpoint and at the end of training, it writes `feature_geometry/features.csv` into the run's folder.
    The table has the norm and the dimensionality of every feature of every seed. It also draws `features.png`, which is
    written to TensorBoard as well; there, seeds are ordered by their loss in the last validation. Networks are the same
    on every rank, and only rank 0 measures.

    Raises:
        ZooError: In `setup`, if the module has no `features` or no `seed_losses`.
    """

    def __init__(self) -> None:
        self._summary: dict[str, str] = {}
        self._written = -1  # step of the last table, or -1 if there was a validation since

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module without features."""
        require(self, pl_module, HasFeatures)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that the table has to be written again, because the losses have changed."""
        self._written = -1

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table and draw."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw, unless that was done with a checkpoint of this step."""
        if trainer.global_step != self._written:
            self._write(trainer, pl_module)

    def summary(self) -> dict[str, str]:
        """Return the lines for the table at the end of a run."""
        return self._summary

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._written = trainer.global_step
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        W: Tensor = module.features().detach().float().cpu()
        losses: Tensor = module.seed_losses.cpu().reshape(len(W))
        norms, shares = W.norm(dim=2), feature_dimensionality(W)  # (n_seeds, n_features)
        n_seeds, n_features = norms.shape
        folder = Path(trainer.default_root_dir) / "feature_geometry"
        columns = {
            "seed": [seed for seed in range(n_seeds) for _ in range(n_features)],
            "feature": [*range(n_features)] * n_seeds,
            "norm": norms.flatten().tolist(),
            "dimensionality": shares.flatten().tolist(),
        }
        write_table(folder / "features.csv", columns)
        best = int(losses.nan_to_num(torch.inf).argmin())
        kept = norms[best] > REPRESENTED
        mean = shares[best][kept].mean() if kept.any() else 0.0
        text = f"{int(kept.sum())} of {n_features} with norm > 1/2 in d = {W.shape[2]}, mean dimensionality {mean:.3f}"
        if losses[best].isnan():
            self._summary = {"best seed": "unknown without a validation", f"features of seed {best}": text}
        else:
            self._summary = {"best seed": f"{best}, loss {losses[best]:.5g}", "its features": text}
        lines = [[str(i), f"{norms[best, i]:.4f}", f"{shares[best, i]:.4f}"] for i in range(n_features)]
        table = markdown_table(["feature", "norm", "dimensionality"], lines)
        show(trainer, draw_features(W, losses), folder / "features.png", "features", {"best_seed": table})
