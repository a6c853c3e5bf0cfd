"""Tokens per second of training: the zoo in Lightning, a bare PyTorch loop, a GPT-2 like nanoGPT's, and transformers.

    python -m benchmarks.training_speed
    python -m benchmarks.training_speed --device cuda --precision bf16-mixed --compile --peak-tflops 989

All contenders train a GPT-2 with tied embeddings on the same batches, in turns in one process. A single `Trainer.fit`
runs throughout: after every --steps optimizer steps, a callback stops the clock, and the plain loops make as many
steps. A turn of the trainer therefore includes everything that it does in these steps, but neither its start nor its
end. Ratios compare turns in the same round. The benchmark requires transformers, which the `test` extra installs.
"""

import contextlib
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.common import RandomText, bare_loop, clock, parser, plain_loop, setting, sizes, zoo_trainer
from benchmarks.nanogpt import NanoGPT
from zoo.callbacks import EmbeddingDrift, LastCheckpoint
from zoo.cli import ALWAYS
from zoo.models import GPT2, FrozenEmbeddingGPT2

ZOO, BARE, FROZEN = "zoo in Lightning", "bare loop", "bare loop, W_E frozen"
NANOGPT, TRANSFORMERS = "nanoGPT's manner", "transformers"
RATIOS = {  # contender, the one it is compared with -> smallest ratio to reach
    (ZOO, BARE): "0.95",
    (ZOO, NANOGPT): "1.05",
    (ZOO, TRANSFORMERS): "1.2",
    (FROZEN, BARE): "",
}


class Finished(Exception):
    """Raised when all turns are over."""


class Turns(L.Callback):
    """Callback that times the turns of the trainer and, between them, the turns of the other contenders.

    Args:
        args: Arguments of the command line.
        others: Name -> function that makes one step.
    """

    def __init__(self, args: Namespace, others: dict[str, Callable[[], None]]) -> None:
        self.args, self.others = args, others
        self.seconds: dict[str, list[float]] = {name: [] for name in (ZOO, *others)}
        self.began = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """At the end of a turn of the trainer, run the turns of the others; the first turn is a warm-up."""
        args, done = self.args, trainer.global_step - self.args.warmup
        if done < 0 or done % args.steps:
            return
        if done:
            self.seconds[ZOO].append(clock(args.device) - self.began)
        for name, step in self.others.items():
            began = clock(args.device)
            for _ in range(args.steps if done else args.warmup):
                step()
            if done:
                self.seconds[name].append(clock(args.device) - began)
        if done == args.steps * args.repeats:
            raise Finished
        self.began = clock(args.device)


def nanogpt_loop(args: Namespace, data: RandomText) -> Callable[[], None]:
    """Return the loop of a GPT-2 like nanoGPT's. Its initial weights differ from those of the other contenders."""
    torch.manual_seed(0)
    model = NanoGPT(**sizes(args)).to(args.device).train()
    if args.compile:
        model.compile()
    return plain_loop(args, data, model, lambda batch: model(batch["input_ids"], batch["targets"]), model.optimizer())


def transformers_loop(args: Namespace, data: RandomText, net: GPT2) -> Callable[[], None]:
    """Return the loop of the GPT-2 of transformers, with the same initial weights and without a key-value cache."""
    config = GPT2Config.from_dict(net.hf_config() | {"use_cache": False})
    model = GPT2LMHeadModel(config).to(args.device).train()
    model.load_state_dict(net.state_dict())
    if args.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return plain_loop(
        args, data, model, lambda batch: model(batch["input_ids"], labels=batch["input_ids"]).loss, optimizer
    )


def flops_per_token(args: Namespace, net: GPT2, frozen: bool) -> int:
    """Return 6 N + 12 L D T, N with the unembedding; if that is frozen, without 2 V D for its weight gradient."""
    N = sum(p.numel() for p in net.parameters()) - net.transformer.wpe.weight.numel()
    return 6 * N + 12 * args.n_layers * args.d_model * args.context_length - 2 * net.W_U.numel() * frozen


def report(args: Namespace, net: GPT2, seconds: dict[str, list[float]]) -> None:
    tokens = args.steps * args.batch_size * args.context_length
    speeds = Table("", "tokens / s", "min", "max", "ms / step", title=setting(args), title_justify="left")
    if args.peak_tflops:
        speeds.add_column("FLOPs used")
    for name, turns in seconds.items():
        median = np.median(turns)
        row = [f"{tokens / s:,.0f}" for s in (median, max(turns), min(turns))] + [f"{1000 * median / args.steps:.2f}"]
        if args.peak_tflops:
            flops = flops_per_token(args, net, name == FROZEN) * tokens / median
            row.append(f"{flops / (1e12 * args.peak_tflops):.1%}")
        speeds.add_row(name, *row)
    ratios = Table("ratio of tokens / s", "median", "min", "max", "aim")
    for (one, other), aim in RATIOS.items():
        r = np.divide(seconds[other], seconds[one])
        ratios.add_row(f"{one} / {other}", *(f"{x:.3f}" for x in (np.median(r), r.min(), r.max())), aim and f">= {aim}")
    for table in (speeds, ratios):
        Console().print(table)


def main(argv: Sequence[str] | None = None) -> None:
    cli = parser(__doc__)
    cli.add_argument("--steps", type=int, default=100, help="optimizer steps per turn, default 100")
    cli.add_argument("--repeats", type=int, default=5, help="turns of each contender, default 5")
    cli.add_argument("--warmup", type=int, default=10, help="steps of each contender before timing, default 10")
    cli.add_argument(
        "--drift-every",
        type=int,
        default=100,
        help="steps between drift measurements, default 100; a divisor of --steps",
    )
    cli.add_argument("--peak-tflops", type=float, help="peak of the device, to report the share of it that is used")
    args = cli.parse_args(argv)

    total = args.warmup + args.steps * args.repeats + 1  # one more, so that the end of the run is not timed
    data = RandomText(args, total)
    net, bare = bare_loop(args, data, total)
    others = {TRANSFORMERS: transformers_loop(args, data, net), NANOGPT: nanogpt_loop(args, data), BARE: bare}
    others[FROZEN] = bare_loop(args, data, total, frozen=True)[1]
    turns = Turns(args, others)
    always = [c(every_n_steps=10**9) if c is LastCheckpoint else c() for c in ALWAYS]
    module = FrozenEmbeddingGPT2(**sizes(args), frozen_rows="none", compile=args.compile)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Finished):
        callbacks = [*always, EmbeddingDrift(every_n_steps=args.drift_every), turns]
        zoo_trainer(args, folder, total, callbacks=callbacks).fit(module, datamodule=data)
    report(args, net, turns.seconds)


if __name__ == "__main__":
    main()
