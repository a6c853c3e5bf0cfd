"""When a run is saved: the last state to resume from, and log-spaced steps to study; and that it is saved whole."""

import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from zoo.callbacks.exact_resume import VALIDATION_BATCHES
from zoo.callbacks.last_checkpoint import last_checkpoint
from zoo.catalog import step_folder
from zoo.checkpoints import save
from zoo.errors import ZooError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves checkpoints beside their place and moves them there when they are complete and on the disk.

    Lightning writes to the system's folder of temporary files; moving from there to another disk is not atomic, and a
    disk that is full or a process that is killed would leave neither the old checkpoint nor the new one.

    Raises:
        ZooError: If the file cannot be written; what was there before stays.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save, all or nothing."""
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            below = error if isinstance(error, OSError) else error.__context__  # torch wraps what the disk says
            reason = getattr(below, "strerror", None) or str(error).partition("\n")[0]
            kept = "; the one before it is still there" if path.is_file() else ""
            raise ZooError(f"checkpoint {path} could not be saved: {reason}{kept}") from error


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` in the run's folder, from which the run resumes exactly.

    Args:
        every_n_steps: Optimizer steps between two saves; the end of the run is always saved.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        super().__init__(filename="last", every_n_train_steps=every_n_steps, enable_version_counter=False)
        self._complete = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Settle on the run's folder, and on saving whole files."""
        self.dirpath = str(last_checkpoint(trainer).parent)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        super().setup(trainer, pl_module, stage)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say whether the run has come to the end that its settings give it, with nothing left to do."""
        checkpoint["complete"] = self._complete

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """The checkpoint that a run goes on from need not be saved again."""
        if Path(str(trainer.ckpt_path)).resolve() == last_checkpoint(trainer).resolve():
            self._last_global_step_saved = checkpoint["global_step"]

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Save when it is time, and at the last step that `max_steps` allows, from where the run can be prolonged."""
        super().on_train_batch_end(trainer, pl_module, *args)
        if trainer.global_step == trainer.max_steps:
            self._save_unless_saved(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the end of the run, or tell the checkpoint of its last step what has happened since."""
        self._complete, path = not trainer.should_stop, last_checkpoint(trainer)
        if self._last_global_step_saved != trainer.global_step:
            self._save_unless_saved(trainer)
        elif trainer.is_global_zero and path.is_file():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            states = {c.state_key: state for c in trainer.callbacks if (state := c.state_dict())}  # type: ignore[attr-defined]
            checkpoint |= {"zoo": pl_module.zoo_part(), "callbacks": states}
            checkpoint |= {"owed_validation": False, "step_metrics": {}, "complete": self._complete}
            validated = trainer.fit_loop.epoch_loop.val_loop.batch_progress.state_dict()
            checkpoint["loops"]["fit_loop"][VALIDATION_BATCHES] = validated
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, path)

    def _save_unless_saved(self, trainer: L.Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class LogSpacedCheckpoints(L.Callback):
    """Writes zoo checkpoints of the weights alone at log-spaced steps, `steps/step-000512` in the run's folder.

    `zoo.load(run_folder, step=512)` and `zoo.embedding(run_folder, step=512)` read them.

    Args:
        pieces: Pairs [every, until]: save every so many steps until that step, one pair after the other, such as
            [[10, 100], [50, 2000]]. By default powers of two. Steps 0 and 1 and the last step are always saved.
    """

    def __init__(self, pieces: list[list[int]] | None = None) -> None:
        for piece in pieces or []:
            if len(piece) != 2 or min(piece) < 1:
                raise ZooError(f"pieces: {piece} is not a pair [every, until] of positive numbers")
        self.pieces = pieces
        self._last_step = -1

    def due(self, step: int) -> bool:
        """Whether the schedule has this step."""
        if step <= 1:
            return True
        if self.pieces is None:
            return math.log2(step).is_integer()
        for every, until in self.pieces:
            if step <= until:
                return step % every == 0
        return False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the initial weights."""
        self._last_step = trainer.global_step
        if trainer.global_step == 0:
            self._save(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when a step of the schedule has just been done."""
        if trainer.global_step != self._last_step and self.due(trainer.global_step):
            self._save(trainer, pl_module)
        self._last_step = trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the checkpoint of this very step, if there is one, what has been measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self.due(trainer.global_step):
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last step, with all that was measured."""
        self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        part = pl_module.zoo_part()
        folder = Path(trainer.default_root_dir) / "steps" / step_folder(part["step"])
        saved = {name: part[name] for name in ("step", "provenance", "tokenizer_json", "token_counts")}
        save(pl_module.net, folder, **saved)
