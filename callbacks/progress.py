"""The progress bar of a run."""

from lightning.pytorch.callbacks import RichProgressBar


class RunProgress(RichProgressBar):
    """Lightning's rich progress bar, ending where `max_steps` ends the run."""

    @property
    def total_train_batches(self) -> int | float:
        """Batches in this epoch, or fewer if the run ends within it."""
        in_epoch, max_steps = super().total_train_batches, self.trainer.max_steps
        if max_steps < 0:
            return in_epoch
        left = (max_steps - self.trainer.global_step) * self.trainer.accumulate_grad_batches
        return min(in_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready + left)

    def _get_train_description(self, current_epoch: int) -> str:
        max_epochs = self.trainer.max_epochs
        return f"epoch {current_epoch}" + (f"/{max_epochs - 1}" if max_epochs and max_epochs > 0 else "")
