"""Time of a training step of a sparse autoencoder: the zoo in a bare loop and in Lightning, and other libraries.

    python -m benchmarks.sae_speed
    python -m benchmarks.sae_speed --device cuda

A step is complete: forward and backward pass, gradient clipping if the library clips, Adam, normalisation of the
decoder, counts of dead latents, and the auxiliary loss of each library. All contenders run in turns in one process, on
the same batches of planted sparse rows. A single `Trainer.fit` runs throughout: after every turn of the trainer, a
callback stops the clock and runs the turns of the others. ReLU autoencoders are measured at the start of training, when
codes are dense, and again after training until codes are sparse. Libraries that are not installed are skipped; to
install them: `pip install sae-lens dictionary-learning eai-sparsify overcomplete`.
"""

import argparse
import contextlib
import logging
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common import clock
from benchmarks.sae_contenders import CLIP, LEARNING_RATE, PEERS, Contender, bare, network
from zoo.cli import ALWAYS
from zoo.models import AdamLinear, SparseAutoencoder
from zoo.null_models import planted

BARE, LIGHTNING = "zoo, bare loop", "zoo in Lightning"
# Contender that BARE is compared with, or None for the fastest other than SAELens -> smallest ratio to reach.
AIMS = {"topk": {"SAELens": "4", "SAELens, sparse": "", None: "1.5"}, "relu": {"SAELens": "1.3", None: ""}}
N_BATCHES = 4  # different batches, which are repeated


class Finished(Exception):
    """Raised when all turns are over."""


class Turn(NamedTuple):
    """Consecutive training steps of one contender."""

    batches: list[Tensor]  # (B, d_in) each
    measured: str | None = None  # name of the measurement, None if the steps are not timed


class Rows(L.LightningDataModule):
    """Datamodule with the batches of all turns."""

    def __init__(self, turns: list[Turn], sample: Tensor) -> None:
        super().__init__()
        self.turns, self.rows, self.d_in = turns, sample, sample.shape[1]

    def sample(self) -> Tensor:
        """Return training vectors for initialisation."""
        return self.rows

    def train_dataloader(self) -> Any:
        """Return the batches of all turns, and one more batch, so that the end of the run is not timed."""
        data = [{"x": x} for turn in self.turns for x in turn.batches]
        return torch.utils.data.DataLoader([*data, data[-1]], batch_size=None)


class TakeTurns(L.Callback):
    """Callback that times the trainer's turns and, after each, the turns of the others on the same batches."""

    def __init__(self, device: str, turns: list[Turn], others: dict[str, Contender]) -> None:
        self.device, self.turns, self.others = device, turns, others
        self.done, self.began = 0, 0.0
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.on: dict[tuple[str, str], float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        """At the end of a turn of the trainer, run the turns of the others."""
        self.done += 1
        turn = self.turns[0]
        if self.done < len(turn.batches):
            return
        self._note(LIGHTNING, turn, clock(self.device) - self.began)
        for name, other in self.others.items():
            began = clock(self.device)
            for x in turn.batches:
                other.step(x)
            self._note(name, turn, clock(self.device) - began)
            if turn.measured:
                self.on[name, turn.measured] = _on(other.on(turn.batches[0]))
        if turn.measured:
            self.on[LIGHTNING, turn.measured] = _on(module.net.encode(turn.batches[0]))
        self.turns, self.done = self.turns[1:], 0
        if not self.turns:
            raise Finished
        self.began = clock(self.device)

    def _note(self, name: str, turn: Turn, seconds: float) -> None:
        if turn.measured:
            self.seconds.setdefault((name, turn.measured), []).append(seconds / len(turn.batches))


@torch.no_grad()
def _on(codes: Tensor) -> float:
    return (codes > 0).sum().item() / len(codes)


def contenders(args: Namespace, variant: str, sample: Tensor) -> dict[str, Contender]:
    """Return all contenders except the zoo in Lightning; skip libraries that cannot be imported or run, and say so."""
    found = {BARE: bare(args, network(args, variant), sample)}
    for name, make in PEERS[variant].items():
        try:
            torch.manual_seed(0)
            found[name] = make(args, variant, sample)
            found[name].step(sample[: args.batch_size])
        except ImportError as error:
            print(f"{name} is skipped: {error}")
        except Exception as error:  # other libraries may raise any exception
            print(f"{name} is skipped because it fails: {type(error).__name__} {error}".splitlines()[0])
            found.pop(name, None)
    return found


def plan(args: Namespace, variant: str, rows: Tensor) -> list[Turn]:
    """Return the turns: a warm-up and timed turns; for ReLU also training on small batches and more timed turns."""
    batches = list(rows.split(args.batch_size))
    timed = [batches[i % N_BATCHES] for i in range(args.steps)]
    turns = [Turn(batches[:1])] + [Turn(timed, "at the start")] * args.rounds
    if variant == "topk":
        return turns
    small = list(rows.split(args.train_batch_size))
    turns.append(Turn([small[i % len(small)] for i in range(args.train_steps)]))
    return [*turns, Turn(batches[:1])] + [
        Turn(timed, f"after {args.train_steps} steps of {args.train_batch_size}")
    ] * args.rounds


def run(args: Namespace, variant: str, rows: Tensor) -> TakeTurns:
    """Run the turns of all contenders."""
    sample = rows[: 2 * args.batch_size]
    turns = plan(args, variant, rows)
    others = contenders(args, variant, sample)
    callback = TakeTurns(args.device, turns, others)
    optimizer = AdamLinear(learning_rate=LEARNING_RATE, warmup_steps=0, decay_fraction=0.0)
    module = SparseAutoencoder(network(args, variant), optimizer, args.dead_after, sparsity_warmup_steps=0)
    trainer = L.Trainer(
        accelerator="gpu" if args.device == "cuda" else "cpu",
        devices=1,
        precision=args.precision,
        max_epochs=-1,
        max_steps=10**6,
        gradient_clip_val=CLIP,
        log_every_n_steps=20,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[*(c() for c in ALWAYS if c.__name__ not in ("LastCheckpoint", "RunProgress")), callback],
        enable_progress_bar=False,
    )
    with contextlib.suppress(Finished):
        trainer.fit(module, datamodule=Rows(turns, sample))
    return callback


def gradient_error(args: Namespace, variant: str, x: Tensor) -> float:
    """Return the largest error of a gradient with respect to the dense formula, divided by its largest entry.

    Both computations use the same set of active codes, because rounding may change the sign of codes near 0.
    """
    net = network(args, variant)
    net.initialise(x)
    on = net.encode(x).detach() > 0
    net.loss(x).total.backward()
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    W_enc, W_dec, b_enc, b_dec = (net.get_parameter(name).detach().double().requires_grad_() for name in names)
    x = x.double()
    codes = ((x - b_dec) @ W_enc + b_enc) * on
    loss = (x - codes @ W_dec - b_dec).square().sum(1).mean() / net.scale**2
    if variant == "relu":
        loss = loss + args.l1 * (codes * W_dec.norm(dim=1)).sum(1).mean() / net.scale
    (loss / args.d_in).backward()
    pairs = [
        (net.get_parameter(name).grad, p.grad) for name, p in zip(names, (W_enc, W_dec, b_enc, b_dec), strict=True)
    ]
    return max(((ours - dense).abs().max() / dense.abs().max()).item() for ours, dense in pairs)  # type: ignore[union-attr, operator]


def report(args: Namespace, variant: str, taken: TakeTurns) -> None:
    """Print milliseconds per step, and their ratio to the turn of the bare loop in the same round."""
    for measured in dict.fromkeys(key[1] for key in taken.seconds):
        times = {name: 1000 * np.array(s) for (name, m), s in taken.seconds.items() if m == measured}
        columns = ("ms / step, least (most)", "/ bare: of the least", "median (least to most)", "codes on", "aim")
        table = Table(variant, *columns, title=measured)
        others = {name: t.min() for name, t in times.items() if not name.startswith(("zoo", "SAELens"))}
        best = min(others, key=lambda name: others[name], default=None)
        for name, t in times.items():
            r = t / times[BARE]
            aim = AIMS[variant].get(name, AIMS[variant][None] if name == best else "")
            table.add_row(
                name,
                f"{t.min():.0f} ({t.max():.0f})",
                f"{t.min() / times[BARE].min():.2f}",
                f"{np.median(r):.2f} ({r.min():.2f} to {r.max():.2f})",
                f"{taken.on[name, measured]:.0f}",
                aim and f">= {aim}",
            )
        Console(width=120).print(table)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--precision", choices=("32-true", "bf16-mixed"), help="default bf16-mixed on cuda")
    for name, cpu, cuda in (("d_in", 384, 768), ("d_sae", 3072, 24576), ("batch_size", 4096, 16384)):
        made.add_argument(f"--{name}", type=int, help=f"default {cpu}, on cuda {cuda}")
        made.set_defaults(**{f"_{name}": (cpu, cuda)})
    made.add_argument("--k", type=int, default=32, help="active latents per example of TopK, default 32")
    made.add_argument("--l1", type=float, default=5.0, help="L1 penalty of ReLU, default 5")
    made.add_argument(
        "--dead_after",
        type=int,
        default=100_000,
        help="zoo: a latent is dead after this many examples without firing, default 100,000",
    )
    made.add_argument("--variants", nargs="+", choices=("topk", "relu"), default=["topk", "relu"])
    made.add_argument("--steps", type=int, default=2, help="steps per turn, default 2")
    made.add_argument("--rounds", type=int, default=5, help="turns of each contender, default 5")
    made.add_argument("--train_steps", type=int, default=400, help="ReLU: steps between measurements, default 400")
    made.add_argument("--train_batch_size", type=int, default=512, help="batch size in these steps, default 512")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for name in ("d_in", "d_sae", "batch_size"):
        cpu, cuda = getattr(args, f"_{name}")
        setattr(args, name, getattr(args, name) or (cuda if args.device == "cuda" else cpu))
    args.precision = args.precision or ("bf16-mixed" if args.device == "cuda" else "32-true")
    if args.device == "cpu":
        torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    generator = torch.Generator().manual_seed(0)
    rows = planted(N_BATCHES * args.batch_size, args.d_in, args.d_sae, 16, 0.05, generator)[0]
    rows = ((rows - rows.mean(0)) / rows.std()).to(args.device)
    for variant in args.variants:
        error = gradient_error(args, variant, rows[: args.batch_size].cpu())
        print(f"{variant}: gradients differ from those of the dense formula by {error:.1e} of their largest entry")
        report(args, variant, run(args, variant, rows))


if __name__ == "__main__":
    main()
