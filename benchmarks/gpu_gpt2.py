"""Section of `benchmarks.gpu` on training GPT-2: in Lightning, in a bare loop, like nanoGPT, and with transformers."""

import contextlib
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch

from benchmarks.common import RandomText, bare_loop, sizes, zoo_trainer
from benchmarks.gpu_rows import Row, forget_peak, left_out, peak_memory
from benchmarks.training_speed import (
    BARE,
    NANOGPT,
    TRANSFORMERS,
    ZOO,
    Finished,
    Turns,
    flops_per_token,
    nanogpt_loop,
    transformers_loop,
)
from zoo.callbacks import EmbeddingDrift, LastCheckpoint
from zoo.cli import ALWAYS
from zoo.models import FrozenEmbeddingGPT2

PEAK = 989e12  # operations per second of an H100 or H200 in bfloat16
SMALL = {"n_layers": 12, "d_model": 768, "n_heads": 12, "context_length": 1024, "vocab_size": 50257, "batch_size": 32}
TINY = {"n_layers": 1, "d_model": 8, "n_heads": 2, "context_length": 8, "vocab_size": 33, "batch_size": 2}
DRIFT_EVERY = 10
FROZEN = "bare loop, untied, W_E frozen"


class TurnsAndPeak(Turns):
    """`Turns` that also records the peak memory of the trainer's warm-up."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Record the memory that other contenders hold, which is subtracted from the peak."""
        self.device = trainer.strategy.root_device
        self.before, self.peak = allocated(self.device), float("nan")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Reset the peak after the first step, which compiles, and record it before the first turn of the others."""
        if trainer.global_step == self.args.warmup:
            self.peak = peak_memory(self.device) - self.before
        elif trainer.global_step == 1:
            forget_peak(self.device)
        super().on_train_batch_end(trainer, *args)


def allocated(device: torch.device) -> float:
    """Return the memory of all tensors on the device, in GB; NaN on a CPU."""
    return torch.cuda.memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")


def settings(device: torch.device, tiny: bool) -> Namespace:
    """Return the sizes of GPT-2 small, or the smallest sizes, in the form of the arguments of the other benchmarks."""
    on_gpu = device.type == "cuda"
    return Namespace(
        **(TINY if tiny else SMALL),
        device=device.type,
        precision="bf16-mixed" if on_gpu else "32-true",
        compile=on_gpu,
        steps=2 if tiny else 10,
        repeats=1 if tiny else 3,
        warmup=1 if tiny else 5,
    )


def section(device: torch.device, tiny: bool) -> list[Row]:
    """Train all contenders in turns in one process. Ratios are medians over rounds of turns in the same round."""
    args = settings(device, tiny)
    total = args.warmup + args.steps * args.repeats + 1
    data = RandomText(args, total)
    net, bare = bare_loop(args, data, total)
    makers: dict[str, Callable[[], Callable[[], None]]] = {
        BARE: lambda: bare,
        FROZEN: lambda: bare_loop(args, data, total, frozen=True, tied=False)[1],
        NANOGPT: partial(nanogpt_loop, args, data),
        TRANSFORMERS: partial(transformers_loop, args, data, net),
    }
    rows, others, peaks = [], {}, {}
    for name, make in makers.items():
        try:
            before = allocated(device) if name != BARE else 0.0
            step = make()
            step()  # compiles
            forget_peak(device)
            step()
            others[name], peaks[name] = step, peak_memory(device) - before
        except Exception as error:  # other libraries may raise any exception
            rows.append(left_out(f"GPT-2, {name}", error))
    turns = TurnsAndPeak(args, others)
    always = [c(every_n_steps=10**9) if c is LastCheckpoint else c() for c in ALWAYS]
    module = FrozenEmbeddingGPT2(**sizes(args), frozen_rows="none", compile=args.compile)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Finished):
        callbacks = [*always, EmbeddingDrift(every_n_steps=DRIFT_EVERY), turns]
        zoo_trainer(args, folder, total, callbacks=callbacks).fit(module, datamodule=data)
    peaks[ZOO] = turns.peak
    tokens = args.steps * args.batch_size * args.context_length
    flops = flops_per_token(args, net, False)  # the same for an untied or frozen embedding

    def row(what: str, name: str, peer: str, required: str) -> Row:
        speed = tokens / float(np.median(turns.seconds[name]))
        ratio = float(np.median(np.divide(turns.seconds[peer], turns.seconds[name]))) if peer in turns.seconds else None
        unit = "tokens / s"
        if device.type == "cuda":
            unit += f"; {flops * speed / PEAK:.1%} of 989 TFLOP/s, {peaks[name]:.1f} GB"
        return Row(what, speed, unit, peer if ratio else "", ratio, required)

    sizes_of_it = f"GPT-2 {sum(p.numel() for p in net.parameters()):,}, T {args.context_length}, B {args.batch_size}"
    fit = f"{sizes_of_it}, Trainer.fit, all callbacks, drift every {DRIFT_EVERY} steps"
    rows[:0] = [
        row(fit, ZOO, NANOGPT, "1.05, 50 % of peak"),
        row("the same", ZOO, TRANSFORMERS, ""),
        row("the same", ZOO, BARE, ""),
    ]
    if BARE in others:
        rows.append(row("GPT-2, bare loop", BARE, NANOGPT, ""))
    if FROZEN in others:
        rows.append(row(f"GPT-2, {FROZEN}", FROZEN, BARE, ""))
    rows += [row(f"GPT-2, {name}", name, "", "") for name in (NANOGPT, TRANSFORMERS) if name in others]
    return rows
