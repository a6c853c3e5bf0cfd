"""Ctrl-C and SIGTERM end a run between two steps, with a checkpoint."""

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
        checkpoint: Where the run was saved.
    """

    def __init__(self, signum: int, step: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}, saved in {checkpoint}")
        self.signum, self.checkpoint = signum, checkpoint


class GracefulStop(L.Callback):
    """On the first SIGINT or SIGTERM saves `checkpoints/last.ckpt` after the step it came in, and raises RunStopped.

    In a validation it saves after the batch; the resumed run makes the validation up. Several processes agree on when
    to stop, within `AGREE_EVERY` steps or batches. A second Ctrl-C ends the run at once, leaving the checkpoint before,
    which the KeyboardInterrupt has as `checkpoint`.
    """

    AGREE_EVERY = 10

    def __init__(self) -> None:
        self._signum = 0
        self._stopped: RunStopped | None = None
        self._previous: dict[int, Any] = {}
        self._last_step = -1
        self._rank = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the two signals."""
        self._last_step, self._rank = trainer.global_step, trainer.global_rank
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a signal has come and the optimizer has just stepped; a last step ends the run by itself."""
        step = trainer.global_step
        if step in (self._last_step, trainer.max_steps):  # in the midst of accumulating gradients, or at the end
            return
        self._last_step = step
        self._save_if_asked(trainer, pl_module, step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop, now that the step's metrics are logged."""
        self._stop_if_saved()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before a validation, which the resumed run makes up for."""
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
        """Save and stop within a validation, unless the optimizer still waits for gradients."""
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if training and not trainer.fit_loop._should_accumulate():
            self._save_if_asked(trainer, pl_module, batch_idx + 1)
            self._stop_if_saved()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back, and tell an interruption where the run goes on from."""
        self._restore()
        if isinstance(exception, KeyboardInterrupt):
            exception.checkpoint = last_checkpoint(trainer)  # type: ignore[attr-defined]

    def _save_if_asked(self, trainer: L.Trainer, pl_module: L.LightningModule, count: int) -> None:
        """Save if any process was told to stop; several ask one another whenever `count` says so."""
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
            print("\nstopping after this step (Ctrl-C again: at once)", flush=True)

    def _restore(self) -> None:
        while self._previous:
            signum, handler = self._previous.popitem()
            signal.signal(signum, handler)
