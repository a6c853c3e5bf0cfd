"""Callback that shows the errors of Boolean gates for each of the four cases of their inputs."""

from pathlib import Path
from typing import Any

import lightning as L

from zoo.callbacks.gate_picture import draw_gate_errors
from zoo.callbacks.tables_and_pictures import markdown_table, show, write_table
from zoo.metrics import CASES
from zoo.protocols import HasGates, require

COLUMNS = ("n", "mean", "rms", "bias", "max", "right")


class GateErrors(L.Callback):
    """Shows the errors of a network of Boolean gates for any module with `case_errors`.

    Errors are reported separately for the cases 00, 01, 10 and 11. With every checkpoint and at the end of training, it
    writes `gate_errors/cases.csv` into the run's folder if there was a validation since the last time. The table has
    one line per depth, seed and case, with the statistics of `CaseErrors.compute`. It also draws `cases.png`,
    histograms of the errors by case, which is written to TensorBoard as well.

    Raises:
        ZooError: In `setup`, if the module has no `case_errors`.
    """

    def __init__(self) -> None:
        self._unwritten = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse a module without gates."""
        require(self, pl_module, HasGates)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that there are new errors to write, except after the sanity check."""
        self._unwritten = trainer.is_global_zero and not trainer.sanity_checking

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table and draw, if there is anything new."""
        self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._unwritten:
            return
        self._unwritten = False
        found = pl_module.case_errors
        cells = [
            [t + 1, seed, case, *(depth[name][seed, i].item() for name in COLUMNS)]
            for t, depth in enumerate(found)  # type: ignore[arg-type]
            for seed in range(len(depth["n"]))
            for i, case in enumerate(CASES)
        ]
        columns = dict(zip(("depth", "seed", "case", *COLUMNS), zip(*cells, strict=True), strict=True))
        folder = Path(trainer.default_root_dir) / "gate_errors"
        write_table(folder / "cases.csv", columns)
        lines = [
            [str(t + 1), case, *(f"{depth[name][:, i].mean():.4f}" for name in COLUMNS[1:])]
            for t, depth in enumerate(found)  # type: ignore[arg-type]
            for i, case in enumerate(CASES)
        ]
        table = markdown_table(["depth", "case", *COLUMNS[1:]], lines)
        show(trainer, draw_gate_errors(found), folder / "cases.png", "gates/errors", {"by_case": table})  # type: ignore[arg-type]
