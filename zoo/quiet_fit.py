"""Training inside a study's task, without any output."""

import lightning as L


def fit(module: L.LightningModule, data: L.LightningDataModule, steps: int) -> None:
    """Train on the CPU for `steps` steps, without progress bar, logs, checkpoints or validation."""
    L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    ).fit(module, data)
