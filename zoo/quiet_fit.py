"""Training and validation inside a study's task, without any output."""

from typing import Any

import lightning as L


def fit(module: L.LightningModule, data: L.LightningDataModule, steps: int) -> None:
    """Train on the CPU for `steps` steps, without progress bar, logs, checkpoints or validation."""
    _trainer(max_steps=steps, max_epochs=-1, limit_val_batches=0).fit(module, data)


def validate(module: L.LightningModule, data: L.LightningDataModule) -> None:
    """Run one validation on the CPU, without progress bar and logs."""
    _trainer().validate(module, data, verbose=False)


def _trainer(**settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **settings,
    )
