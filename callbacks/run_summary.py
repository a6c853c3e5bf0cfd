"""Callback that prints a short table at the end of a run."""

import shlex
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zoo.callbacks.last_checkpoint import last_checkpoint
from zoo.protocols import offered


class RunSummary(L.Callback):
    """Prints the results of a run, where they are stored, and a command to try next.

    Other callbacks add lines to the table by a method `summary()`, which returns label -> text.
    """

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table on rank 0, unless the run was interrupted."""
        if not trainer.is_global_zero or trainer.interrupted:
            return
        run = Path(trainer.default_root_dir)
        checkpoint = last_checkpoint(trainer)
        lines = {"steps": f"{trainer.global_step:,}"}
        measured = sorted(pl_module.measured().items())  # type: ignore[operator]
        judged = {k: v for k, v in measured if k.startswith("val/")}
        if not judged:  # no rows are held out
            judged = {k: v for k, v in measured if k.startswith("val_train/")}
        for name, value in judged.items():
            label = name.replace("val/", "validation ").replace("val_train/", "training rows: ").replace("_", " ")
            lines[label] = f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.4g}"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if summary := offered(callback, "summary"):
                lines |= summary()
        if checkpoint.is_file():
            lines["checkpoint"] = str(checkpoint)
        if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
            lines["curves"] = shlex.join(("tensorboard", "--logdir", str(run)))
        if checkpoint.is_file() and is_overridden("predict_step", pl_module):
            lines["try next"] = shlex.join(
                ("python", "-m", "zoo", "predict", "--ckpt_path", str(checkpoint), "--data.prompts", '["class "]')
            )
        table = Table(title=run.name, show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for label, text in lines.items():
            table.add_row(label, Text(text))
        Console().print(table)
