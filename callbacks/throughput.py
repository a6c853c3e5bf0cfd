"""Callback that logs the tokens seen and the tokens per second of training."""

import time
from typing import Any

import lightning as L

from zoo.callbacks.progress import logging_is_due


class Throughput(L.Callback):
    """Counts the tokens of all ranks and the seconds of training.

    The time includes saving, but not validation or the start of the run. Every `log_every_n_steps` steps it logs
    `tokens_seen`, and `tokens_per_second` since the last logged step. Steps are counted from 0, like the steps that
    Lightning logs. The module's `tokens_per_batch(batch)` returns the number of tokens in a batch.
    """

    def __init__(self) -> None:
        self.tokens_seen = 0
        self.tokens_timed, self.seconds = 0, 0.0
        self._running_since: float | None = None
        self._logged = (0, 0.0)  # tokens and seconds at the last logged step
        self._last_step = 0
        self._unit = "tokens"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._unit = getattr(pl_module, "batches", self._unit)
        self._last_step = trainer.global_step
        self._running_since = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Pause the clock."""
        self._hold()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart the clock, unless this was the sanity check before training."""
        if not trainer.sanity_checking:
            self._running_since = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the batch's tokens, and log if this step is logged."""
        tokens = pl_module.tokens_per_batch(batch) * trainer.world_size
        self.tokens_seen += tokens
        self.tokens_timed += tokens
        step = trainer.global_step
        if step == self._last_step or not logging_is_due(trainer):
            return
        self._last_step = step
        self._hold()
        self._running_since = time.perf_counter()
        tokens, seconds = self.tokens_timed - self._logged[0], self.seconds - self._logged[1]
        self._logged = (self.tokens_timed, self.seconds)
        for logger in trainer.loggers:
            logger.log_metrics({"tokens_seen": self.tokens_seen, "tokens_per_second": tokens / seconds}, step - 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._hold()

    def state_dict(self) -> dict[str, Any]:
        """Return the tokens seen, over all parts of a resumed run. The clock starts again after a resume."""
        return {"tokens_seen": self.tokens_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the count of tokens."""
        self.tokens_seen = state["tokens_seen"]

    def summary(self) -> dict[str, str]:
        """Return lines for the table at the end of a run."""
        rate = self.tokens_timed / self.seconds if self.seconds else 0.0
        if not self.tokens_seen:
            return {}
        return {f"{self._unit} seen": f"{self.tokens_seen:,}", f"{self._unit} per second": f"{rate:,.0f}"}

    def _hold(self) -> None:
        if self._running_since is not None:
            self.seconds += time.perf_counter() - self._running_since
            self._running_since = None
