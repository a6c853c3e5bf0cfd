"""Speed of training many seeds of a toy model in one module, compared with one seed per run.

    python -m benchmarks.toy_speed

The contenders are the zoo with all seeds in one module, the zoo with one seed per run, and two plain PyTorch loops as a
researcher would write them: for one network, and for all networks in one batched tensor. Speeds are in seed-steps per
second; a seed-step is one optimizer step of one network. Each turn is a whole `Trainer.fit` or loop. Ratios compare
turns in the same round.
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from zoo import callbacks
from zoo.active_inputs import ActiveInputs, BernoulliActive, FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import AdamLinear, ToyModule, ToySuperposition, UniversalGates

WATCHING = (callbacks.Throughput, callbacks.FiniteLoss, callbacks.ExactResume, callbacks.EmbeddingDrift)


@dataclass
class Toy:
    """A toy model of the zoo, and the same model as a plain loss function."""

    name: str
    n_features: int
    active: ActiveInputs
    batch_size: int
    module: Callable[[int], ToyModule]  # number of seeds -> module
    parameters: Callable[[int], list[Tensor]]
    loss: Callable[[list[Tensor], Tensor], Tensor]

    def data(self, n_seeds: int) -> SparseFeaturesDataModule:
        """Return the zoo's datamodule."""
        values = "one" if isinstance(self.active, FixedActive) else "uniform"
        return SparseFeaturesDataModule(self.n_features, self.active, values, None, n_seeds, self.batch_size)  # type: ignore[arg-type]


def superposition_loss(parameters: list[Tensor], x: Tensor) -> Tensor:
    W, b = parameters
    y = F.relu(x @ W @ W.mT + b)
    return (x - y).square().sum(-1).mean(-1).sum()


def gate_loss(parameters: list[Tensor], x: Tensor) -> Tensor:
    W_in, b_in, W_out, b_out = parameters
    y = F.relu(x @ W_in + b_in) @ W_out + b_out
    i, j = torch.triu_indices(x.shape[-1], x.shape[-1], offset=1)
    a, b = x[..., i], x[..., j]
    weight = 1 + 10 * (a + b) + 100 * a * b
    return (weight * (y - a * b).square()).mean((-1, -2)).sum()


def drawn(toy: Toy, n: int, generator: torch.Generator) -> Tensor:
    """Draw vectors as a plain script would."""
    if isinstance(toy.active, FixedActive):
        x = torch.zeros(n, toy.n_features)
        return x.scatter_(1, torch.rand(n, toy.n_features, generator=generator).topk(toy.active.n_active).indices, 1.0)
    on = torch.rand(n, toy.n_features, generator=generator) < float(np.max(toy.active.n_active)) / toy.n_features
    return on * torch.rand(n, toy.n_features, generator=generator)


def superposition(n: int, m: int) -> Toy:
    def module(seeds: int) -> ToyModule:
        return ToySuperposition(n, m, seeds, optimizer=AdamLinear(0.01))

    def parameters(seeds: int) -> list[Tensor]:
        return [torch.randn(seeds, n, m) / 4, torch.zeros(seeds, 1, n)]

    name = f"superposition, n = {n}, m = {m}, batch 1024"
    return Toy(name, n, BernoulliActive(1.0), 1024, module, parameters, superposition_loss)


def gates(m: int, d: int) -> Toy:
    def module(seeds: int) -> ToyModule:
        return UniversalGates(m, m, d, seeds, optimizer=AdamLinear(0.01))

    def parameters(seeds: int) -> list[Tensor]:
        pairs = m * (m - 1) // 2
        W_in, W_out = torch.randn(seeds, m, d), torch.randn(seeds, d, pairs) / d
        return [W_in, torch.zeros(seeds, 1, d), W_out, torch.zeros(seeds, 1, pairs)]

    return Toy(f"U-AND, m = d = {m}, batch 128", m, FixedActive(2), 128, module, parameters, gate_loss)


TOYS = {
    "superposition-5": superposition(5, 2),
    "superposition-20": superposition(20, 5),
    "gates-16": gates(16, 16),
    "gates-32": gates(32, 32),
}


def zoo_seconds(toy: Toy, n_seeds: int, steps: int) -> float:
    """Return the seconds of a fit with the default callbacks and a logger, without validation and checkpoints."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            max_epochs=-1,
            callbacks=[c() for c in WATCHING],
            logger=TensorBoardLogger(folder, name="", version=""),
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        module, data = toy.module(n_seeds), toy.data(n_seeds)
        began = time.perf_counter()
        trainer.fit(module, data)
        return time.perf_counter() - began


def plain_seconds(toy: Toy, n_seeds: int, steps: int) -> float:
    """Return the seconds of a plain loop."""
    generator = torch.Generator().manual_seed(0)
    parameters = [p.requires_grad_() for p in toy.parameters(n_seeds)]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    began = time.perf_counter()
    for _ in range(steps):
        x = drawn(toy, n_seeds * toy.batch_size, generator).view(n_seeds, toy.batch_size, -1)
        loss = toy.loss(parameters, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=64, help="number of networks, default 64")
    made.add_argument("--steps", type=int, default=100, help="optimizer steps per turn, default 100")
    made.add_argument("--repeats", type=int, default=5, help="number of rounds, default 5")
    made.add_argument("--toys", nargs="+", choices=TOYS, default=list(TOYS), help="toys with their numbers of inputs")
    args = made.parse_args(argv)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    console = Console()
    for toy in (TOYS[name] for name in args.toys):
        contenders: dict[str, tuple[Callable[[Toy, int, int], float], int, int]] = {
            f"zoo, {args.seeds} seeds in one module": (zoo_seconds, args.seeds, args.steps),
            "zoo, one seed per run": (zoo_seconds, 1, 4 * args.steps),
            "plain loop, one network": (plain_seconds, 1, 4 * args.steps),
            f"plain loop, {args.seeds} networks batched": (plain_seconds, args.seeds, args.steps),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for measured in track(range(args.repeats + 1), toy.name, console=console):
            for name, (seconds, n_seeds, steps) in contenders.items():
                rate = n_seeds * steps / seconds(toy, n_seeds, steps)
                if measured:
                    rates[name].append(rate)
        first = np.array(rates[f"zoo, {args.seeds} seeds in one module"])
        table = Table(
            "contender", "seed-steps per second", "zoo in one module / this: median (min to max)", title=toy.name
        )
        for name, found in rates.items():
            ratio = first / np.array(found)
            table.add_row(
                name, f"{np.median(found):,.0f}", f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
            )
        console.print(table)
    console.print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, lightning {L.__version__}")


if __name__ == "__main__":
    main()
