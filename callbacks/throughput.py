"""Tokens seen, and tokens per second of training."""

import time
from typing import Any

import lightning as L

from zoo.callbacks.progress import logging_is_due


class Throughput(L.Callback):
    """Counts the tokens of all ranks and the seconds of training, saving included, validation and the start left out.

    Logs `tokens_seen` and `tokens_per_second` (since the last logged step) every `log_every_n_steps` steps, at the
    step counted from 0, as Lightning's own curves do. A module says how many tokens a batch has by
    `tokens_per_batch(batch)`.
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
        """Hold the clock."""
        self._hold()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on, unless this was the check before training."""
        if not trainer.sanity_checking:
            self._running_since = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count, and log when it is time."""
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
        """Tokens seen over all parts of a resumed run; the clock starts anew."""
        return {"tokens_seen": self.tokens_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.tokens_seen = state["tokens_seen"]

    def summary(self) -> dict[str, str]:
        """Lines for the table at the end of a run."""
        rate = self.tokens_timed / self.seconds if self.seconds else 0.0
        if not self.tokens_seen:
            return {}
        return {f"{self._unit} seen": f"{self.tokens_seen:,}", f"{self._unit} per second": f"{rate:,.0f}"}

    def _hold(self) -> None:
        if self._running_since is not None:
            self.seconds += time.perf_counter() - self._running_since
            self._running_since = None
