"""Callback that saves a checkpoint on Ctrl-C or SIGTERM and ends the run between two steps."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch

from zoo.callbacks.last_checkpoint import last_checkpoint


class RunStopped(Exception):
    """A signal ended the run after a complete step.

    Args:
        signum: The signal.
        step: Optimizer steps done.
        checkpoint: File in which the run was saved.
    """

    def __init__(self, signum: int, step: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}, saved in {checkpoint}")
        self.signum, self.checkpoint = signum, checkpoint


class GracefulStop(L.Callback):
    """Saves `checkpoints/last.ckpt` and raises `RunStopped` after the step in which SIGINT or SIGTERM arrives.

    During a validation it saves after the current batch, and the resumed run repeats the validation. Several processes
    stop together, within `AGREE_EVERY` steps or batches. A second Ctrl-C ends the run at once, without saving. Its
    KeyboardInterrupt has the path of the previous checkpoint as `checkpoint`.
    """

    AGREE_EVERY = 10

    def __init__(self) -> None:
        self._signum = 0
        self._stopped: RunStopped | None = None
        self._previous: dict[int, Any] = {}
        self._last_step = -1
        self._rank = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the handlers of the two signals."""
        self._last_step, self._rank = trainer.global_step, trainer.global_rank
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a signal has arrived and the optimizer has just stepped. After the last step the run ends anyway."""
        step = trainer.global_step
        if step in (self._last_step, trainer.max_steps):  # gradients are being accumulated, or the run ends here
            return
        self._last_step = step
        self._save_if_asked(trainer, pl_module, step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop if the run was saved; the metrics of its step are logged by now."""
        self._stop_if_saved()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the run was saved; the resumed run will do this validation."""
        self._stop_if_saved()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and stop during a validation, unless gradients are still being accumulated."""
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if training and not trainer.fit_loop._should_accumulate():
            self._save_if_asked(trainer, pl_module, batch_idx + 1)
            self._stop_if_saved()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the previous signal handlers."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the previous signal handlers, and store the checkpoint's path in a KeyboardInterrupt."""
        self._restore()
        if isinstance(exception, KeyboardInterrupt):
            exception.checkpoint = last_checkpoint(trainer)  # type: ignore[attr-defined]

    def _save_if_asked(self, trainer: L.Trainer, pl_module: L.LightningModule, count: int) -> None:
        """Save if any process has received a signal; several processes only check every `AGREE_EVERY` counts."""
        signum = self._signum
        if trainer.world_size > 1:
            if count % self.AGREE_EVERY:
                return
            signum = int(trainer.strategy.reduce(torch.tensor(signum, device=pl_module.device), reduce_op="max"))
        if signum:
            path = last_checkpoint(trainer)
            trainer.save_checkpoint(path, weights_only=False)
            self._stopped = RunStopped(signum, trainer.global_step, path)

    def _stop_if_saved(self) -> None:
        if self._stopped:
            raise self._stopped

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._signum = signum
        if self._rank == 0:
            print("\nstopping after this step (press Ctrl-C again to stop at once)", flush=True)

    def _restore(self) -> None:
        while self._previous:
            signum, handler = self._previous.popitem()
            signal.signal(signum, handler)
