"""Time that `EmbeddingDrift` takes per optimizer step, compared with a step of a bare PyTorch loop.

    python -m benchmarks.callback_cost
    python -m benchmarks.callback_cost --device cuda --precision bf16-mixed --compile

The callback times its own hooks within a `Trainer.fit` that logs to TensorBoard. After every measurement, a bare loop
with the same network and batches makes as many steps as lie between two measurements. Tables and figures, which are
written with checkpoints, are not included. The last row for each network is the mean time per step at the default
interval of the callback.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import RandomText, bare_loop, clock, parser, setting, sizes, zoo_trainer
from zoo.callbacks import EmbeddingDrift
from zoo.models import FrozenEmbeddingGPT2

DEFAULT_EVERY = EmbeddingDrift().every_n_steps


class TimedDrift(EmbeddingDrift):
    """`EmbeddingDrift` that records the seconds of its hooks and of a step of the bare loop.

    Args:
        args: Arguments of the command line.
        bare_step: Function that makes one step of the bare loop.
    """

    def __init__(self, args: Namespace, bare_step: Callable[[], None]) -> None:
        super().__init__(every_n_steps=args.every)
        self.device, self.bare_step = args.device, bare_step
        self.between: list[float] = []
        self.measurement: list[float] = []
        self.bare: list[float] = []
        self._before = 0.0

    def on_before_optimizer_step(self, *args: Any) -> None:
        """Time the part of the callback that records weight decay."""
        self._before = self._timed(super().on_before_optimizer_step, *args)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Time the hook, which measures in some steps; after a measurement, time bare steps."""
        seconds = self._before + self._timed(super().on_train_batch_end, trainer, *args)
        if trainer.global_step % self.every_n_steps:
            self.between.append(seconds)
        else:
            self.measurement.append(seconds)
            self.bare.append(self._timed(self._bare_steps) / self.every_n_steps)

    def _timed(self, function: Callable[..., None], *args: Any) -> float:
        began = clock(self.device)
        function(*args)
        return clock(self.device) - began

    def _bare_steps(self) -> None:
        for _ in range(self.every_n_steps):
            self.bare_step()


def timed_run(args: Namespace, frozen: bool) -> TimedDrift:
    total = args.every * (args.measurements + 1)
    data = RandomText(args, total)
    drift = TimedDrift(args, bare_loop(args, data, total, frozen)[1])
    module = FrozenEmbeddingGPT2(**sizes(args), frozen_rows="all" if frozen else "none", compile=args.compile)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_checkpointing": False}
        zoo_trainer(args, folder, total, callbacks=[drift], **quiet).fit(module, datamodule=data)
    return drift


def main(argv: Sequence[str] | None = None) -> None:
    cli = parser(__doc__)
    cli.add_argument("--every", type=int, default=10, help="steps between two measurements, default 10")
    cli.add_argument("--measurements", type=int, default=10, help="number of timed measurements, default 10")
    args = cli.parse_args(argv)

    table = Table("W_E", "", "median, ms", "/ bare step", "min", "max", title=setting(args), title_justify="left")
    for name, frozen in (("trained", False), ("frozen", True)):
        drift = timed_run(args, frozen)
        bare = np.array(drift.bare[1:])  # the first round is a warm-up
        between, measurement = np.array(drift.between[args.every - 1 :]), np.array(drift.measurement[1:])
        per_step = np.median(between) + (measurement - np.median(between)) / DEFAULT_EVERY
        for what, seconds in {
            "bare step": bare,
            "drift, between": between,
            "drift, measuring": measurement,
            f"drift, every {DEFAULT_EVERY}": per_step,
        }.items():
            ratios = (np.median(seconds), seconds.min(), seconds.max()) / np.median(bare)
            table.add_row(name, what, f"{1000 * np.median(seconds):.3g}", *(f"{x:.3g}" for x in ratios))
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
