"""Parts that several benchmarks use: sizes, random text, a plain training loop, a trainer and a clock."""

import argparse
import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zoo.datamodules.text import TokenLoader
from zoo.models import GPT2, AdamWCosine

CLIP = 1.0  # largest gradient norm
SIZES = {"n_layers": 4, "d_model": 256, "n_heads": 4, "context_length": 256, "vocab_size": 8192}


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**SIZES, "batch_size": 8}.items():
        made.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    made.add_argument("--compile", action="store_true", help="compile every network with torch.compile")
    return made


def sizes(args: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(args, name) for name in SIZES}


def setting(args: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{args.n_layers} layers x {args.d_model} wide, {args.n_heads} heads, context {args.context_length}, "
        f"batch {args.batch_size}, vocabulary {args.vocab_size}\n"
        f"{device}, {args.precision}{', compiled' if args.compile else ''}, torch {torch.__version__}"
    )


def clock(device: str) -> float:
    """Return the time in seconds, after all pending work on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class RandomText(L.LightningDataModule):
    """Random tokens: low ids are more frequent than high ids, and the first epoch lasts for the whole run."""

    def __init__(self, args: argparse.Namespace, total_steps: int) -> None:
        super().__init__()
        T, B, V = args.context_length, args.batch_size, args.vocab_size
        draws = np.random.default_rng(0).random((total_steps + 2) * B * T + 1, dtype=np.float32)
        self.tokens = (V * draws**3).astype(np.int32).clip(max=V - 1)
        self.context_length, self.batch_size = T, B
        self.row_counts = torch.from_numpy(np.bincount(self.tokens, minlength=V))
        self.row_labels = [f"token {i}" for i in range(V)]

    def train_dataloader(self) -> TokenLoader:
        """Return a loader of the same batches in the same order at every call."""
        return TokenLoader(self.tokens, self.context_length, self.batch_size, seed=0)


def plain_loop(
    args: argparse.Namespace,
    data: RandomText,
    net: nn.Module,
    loss: Callable[[dict[str, Tensor]], Tensor],
    optimizer: Optimizer,
    schedule: LRScheduler | None = None,
) -> Callable[[], None]:
    """Return a function that makes one optimizer step."""
    batches = chain.from_iterable(repeat(data.train_dataloader()))

    def step() -> None:
        batch = {k: v.to(args.device, non_blocking=True) for k, v in next(batches).items()}
        with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16-mixed"):
            nats = loss(batch)
        optimizer.zero_grad()
        nats.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        if schedule:
            schedule.step()

    return step


def bare_loop(
    args: argparse.Namespace, data: RandomText, total_steps: int, frozen: bool = False, tied: bool = True
) -> tuple[GPT2, Callable[[], None]]:
    """Return the zoo's GPT2 and a function that makes one step with the zoo's optimizer and schedule."""
    torch.manual_seed(0)
    net = GPT2(**sizes(args), tied=tied).to(args.device)
    net.W_E.requires_grad_(not frozen)
    if args.compile:
        net.compile()
    made = AdamWCosine().configure(net, {"transformer.wte.weight", "transformer.wpe.weight"}, total_steps)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        return net(batch["input_ids"], batch["targets"]) / batch["targets"].numel()

    return net, plain_loop(args, data, net, loss, made["optimizer"], made["lr_scheduler"]["scheduler"])


def zoo_trainer(args: argparse.Namespace, folder: str, max_steps: int, **kwargs: Any) -> L.Trainer:
    """Return a Trainer with the settings of `python -m zoo fit`."""
    return L.Trainer(
        accelerator="gpu" if args.device == "cuda" else "cpu",
        devices=1,
        precision=args.precision,
        max_epochs=-1,
        max_steps=max_steps,
        gradient_clip_val=CLIP,
        log_every_n_steps=20,
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_model_summary=False,
        **kwargs,
    )
