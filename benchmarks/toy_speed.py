"""Speed of training many seeds of a toy model in one module, compared with one seed per run.

    python -m benchmarks.toy_speed

The contenders are the zoo with all seeds in one module, the zoo with one seed per run, and for most toys two plain
PyTorch loops as a researcher would write them: for one network, and for all networks in one batched tensor. Speeds are
in seed-steps per second; a seed-step is one optimizer step of one network. Each turn is a whole `Trainer.fit` or loop.
Ratios compare turns in the same round.
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
from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import SkipBigramDataModule, SparseFeaturesDataModule
from zoo.models import (
    AdamLinear,
    CircuitsInDepth,
    CompressedComputation,
    PowerSuperposition,
    SkipBigramAttention,
    ToyModule,
    ToySuperposition,
    UniversalGates,
    UniversalProducts,
)

WATCHING = (callbacks.Throughput, callbacks.FiniteLoss, callbacks.ExactResume, callbacks.EmbeddingDrift)
ADAM = AdamLinear(0.01)


@dataclass
class Plain:
    """The same toy as plain PyTorch, as a researcher would write it.

    Args:
        parameters: Initial weights for a number of networks.
        draw: Inputs for a number of networks, (n_seeds, batch, ...).
        loss: Sum over networks of the loss, from the weights and the inputs.
    """

    parameters: Callable[[int], list[Tensor]]
    draw: Callable[[int, torch.Generator], Tensor]
    loss: Callable[[list[Tensor], Tensor], Tensor]


@dataclass
class Toy:
    """A toy model of the zoo, its data, and the same model in plain PyTorch if there is one."""

    name: str
    module: Callable[[int], ToyModule]  # number of seeds -> module
    data: Callable[[int], SparseFeaturesDataModule]  # number of seeds -> datamodule
    plain: Plain | None = None


def drawn(n_features: int, batch_size: int, n_on: int) -> Callable[[int, torch.Generator], Tensor]:
    """Return a function that draws vectors with `n_on` features that are 1."""

    def draw(seeds: int, generator: torch.Generator) -> Tensor:
        shape = seeds, batch_size, n_features
        return torch.zeros(shape).scatter_(2, torch.rand(shape, generator=generator).topk(n_on).indices, 1.0)

    return draw


def superposition(n: int, m: int) -> Toy:
    def parameters(seeds: int) -> list[Tensor]:
        return [torch.randn(seeds, n, m) / 4, torch.zeros(seeds, 1, n)]

    def draw(seeds: int, generator: torch.Generator) -> Tensor:
        on = torch.rand(seeds, 1024, n, generator=generator) < 1 / n
        return on * torch.rand(seeds, 1024, n, generator=generator)

    def loss(parameters: list[Tensor], x: Tensor) -> Tensor:
        W, b = parameters
        return (x - F.relu(x @ W @ W.mT + b)).square().sum(-1).mean(-1).sum()

    return Toy(
        f"superposition, n = {n}, m = {m}, batch 1024",
        lambda seeds: ToySuperposition(n, m, seeds, optimizer=ADAM),
        lambda seeds: SparseFeaturesDataModule(n, BernoulliActive(1.0), "uniform", None, seeds, 1024),
        Plain(parameters, draw, loss),
    )


def neurons(m: int, d: int, n_out: int) -> Callable[[int], list[Tensor]]:
    """Return a function that makes the weights and biases of one hidden layer."""

    def parameters(seeds: int) -> list[Tensor]:
        W_in, W_out = torch.randn(seeds, m, d) / m**0.5, torch.randn(seeds, d, n_out) / d
        return [W_in, torch.zeros(seeds, 1, d), W_out, torch.zeros(seeds, 1, n_out)]

    return parameters


def gates(m: int) -> Toy:
    def loss(parameters: list[Tensor], x: Tensor) -> Tensor:
        W_in, b_in, W_out, b_out = parameters
        y = F.relu(x @ W_in + b_in) @ W_out + b_out
        i, j = torch.triu_indices(m, m, offset=1)
        a, b = x[..., i], x[..., j]
        weight = 1 + 10 * (a + b) + 100 * a * b
        return (weight * (y - a * b).square()).mean((-1, -2)).sum()

    return Toy(
        f"U-AND, m = d = {m}, batch 128",
        lambda seeds: UniversalGates(m, m, m, seeds, optimizer=ADAM),
        lambda seeds: SparseFeaturesDataModule(m, FixedActive(2), "one", None, seeds, 128),
        Plain(neurons(m, m, m * (m - 1) // 2), drawn(m, 128, 2), loss),
    )


def products(m: int, d: int) -> Toy:
    pi = 2 / (m * (m - 1))

    def loss(parameters: list[Tensor], x: Tensor) -> Tensor:
        W_in, b_in, W_out, b_out = parameters
        y = F.relu(x @ W_in + b_in) @ W_out + b_out
        i, j = torch.triu_indices(m, m, offset=1)
        target = x[..., i] * x[..., j]
        weight = 1 / (1 - pi) + target * (1 / pi - 1 / (1 - pi))
        return (weight * (y - target).square()).mean((-1, -2)).sum()

    return Toy(
        f"products, m = {m}, d = {d}, batch 256",
        lambda seeds: UniversalProducts(m, m, d, seeds, optimizer=ADAM),
        lambda seeds: SparseFeaturesDataModule(m, FixedActive(2), "one", None, seeds, 256),
        Plain(neurons(m, d, m * (m - 1) // 2), drawn(m, 256, 2), loss),
    )


def compressed(n: int, d: int) -> Toy:
    def parameters(seeds: int) -> list[Tensor]:
        return [torch.randn(seeds, n, d) / n**0.5, torch.randn(seeds, d, n) / (n * d) ** 0.5]

    def draw(seeds: int, generator: torch.Generator) -> Tensor:
        on = torch.rand(seeds, 256, n, generator=generator) < 0.05
        return on * (2 * torch.rand(seeds, 256, n, generator=generator) - 1)

    def loss(parameters: list[Tensor], x: Tensor) -> Tensor:
        W_in, W_out = parameters
        return (F.relu(x @ W_in) @ W_out - x.relu()).square().mean((-1, -2)).sum()

    return Toy(
        f"compressed computation, n = {n}, d = {d}, batch 256",
        lambda seeds: CompressedComputation(n, d, seeds, optimizer=ADAM),
        lambda seeds: SparseFeaturesDataModule(n, BernoulliActive(0.05 * n), "signed", None, seeds, 256),
        Plain(parameters, draw, loss),
    )


def power(n: int, d: int) -> Toy:
    def parameters(seeds: int) -> list[Tensor]:
        return [torch.randn(seeds, n, d) / n**0.5, torch.randn(seeds, d, n) / (n * d) ** 0.5]

    def draw(seeds: int, generator: torch.Generator) -> Tensor:
        return torch.eye(n)

    def loss(parameters: list[Tensor], x: Tensor) -> Tensor:
        return (parameters[0] @ parameters[1] - x).pow(4).sum(-1).mean(-1).sum()

    return Toy(
        f"maps of rank {d}, n = {n}, |error|^4, exact loss",
        lambda seeds: PowerSuperposition(n, d, seeds, optimizer=ADAM),
        lambda seeds: SparseFeaturesDataModule(n, FixedActive(1), "one", None, seeds, n),
        Plain(parameters, draw, loss),
    )


def circuits(T: int) -> Toy:
    return Toy(
        f"{T} circuits, 3 active, 32 slots, depth 3, batch 8",
        lambda seeds: CircuitsInDepth(T, 32, n_seeds=seeds, optimizer=ADAM),
        lambda seeds: SparseFeaturesDataModule(T, FixedActive(3), "one", None, seeds, 8),
    )


def attention() -> Toy:
    return Toy(
        "skip bigrams, 64 features, D = 16, d_head = 8, batch 64",
        lambda seeds: SkipBigramAttention(64, n_seeds=seeds, optimizer=ADAM),
        lambda seeds: SkipBigramDataModule(n_seeds=seeds, batch_size=64),
    )


TOYS: dict[str, Callable[[], Toy]] = {
    "superposition-5": lambda: superposition(5, 2),
    "superposition-20": lambda: superposition(20, 5),
    "gates-16": lambda: gates(16),
    "gates-32": lambda: gates(32),
    "products-12": lambda: products(12, 20),
    "compressed-40": lambda: compressed(40, 20),
    "power-6": lambda: power(6, 3),
    "circuits-30": lambda: circuits(30),
    "attention": attention,
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
    assert toy.plain is not None
    generator = torch.Generator().manual_seed(0)
    parameters = [p.requires_grad_() for p in toy.plain.parameters(n_seeds)]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    began = time.perf_counter()
    for _ in range(steps):
        loss = toy.plain.loss(parameters, toy.plain.draw(n_seeds, generator))
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
    for toy in (TOYS[name]() for name in args.toys):
        contenders: dict[str, tuple[Callable[[Toy, int, int], float], int, int]] = {
            f"zoo, {args.seeds} seeds in one module": (zoo_seconds, args.seeds, args.steps),
            "zoo, one seed per run": (zoo_seconds, 1, 4 * args.steps),
        }
        if toy.plain:
            contenders["plain loop, one network"] = (plain_seconds, 1, 4 * args.steps)
            contenders[f"plain loop, {args.seeds} networks batched"] = (plain_seconds, args.seeds, args.steps)
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
