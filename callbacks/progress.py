"""The progress bar of a run."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar


def logging_is_due(trainer: L.Trainer) -> bool:
    """Whether the metrics of the step just done are logged."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and trainer.global_step % every == 0


class RunProgress(RichProgressBar):
    """Lightning's rich progress bar, whose end is the step at which `max_steps` ends the run.

    It shows every metric named `.../loss`. It reads them only when metrics are logged, so that an accelerator never
    waits for the bar.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._losses: dict[str, str] = {}

    @property
    def total_train_batches(self) -> int | float:
        """Number of batches in this epoch, or up to the end of the run if this comes earlier."""
        in_epoch, max_steps = self.trainer.num_training_batches, self.trainer.max_steps
        if max_steps < 0:
            return in_epoch
        left = (max_steps - self.trainer.global_step) * self.trainer.accumulate_grad_batches
        return min(in_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready + left)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Update the losses when they are logged."""
        if logging_is_due(trainer):
            self._renew(trainer)
        super().on_train_batch_end(trainer, *args)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Update the losses after a validation."""
        self._renew(trainer)
        super().on_validation_end(trainer, pl_module)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the values that the bar shows next to the progress."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"} | self._losses

    def say(self, text: str) -> None:
        """Show a text in place of the epoch, such as what a callback computes; an empty text shows the epoch again."""
        if self.progress is not None and self.train_progress_bar_id is not None:
            shown = text or self._get_train_description(self.trainer.current_epoch)
            self.progress.update(self.train_progress_bar_id, description=shown)
            self.refresh()

    def _renew(self, trainer: L.Trainer) -> None:
        losses = {k: v.item() for k, v in trainer.callback_metrics.items() if k.endswith("/loss")}
        self._losses = {name: f"{loss:.3f}" for name, loss in losses.items()}

    def _get_train_description(self, current_epoch: int) -> str:
        max_epochs = self.trainer.max_epochs
        return f"epoch {current_epoch}" + (f"/{max_epochs - 1}" if max_epochs and max_epochs > 0 else "")
