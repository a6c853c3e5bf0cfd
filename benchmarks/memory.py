"""Peak memory of a training step, counted without a GPU: GPT-2 and a TopK autoencoder, against plain formulas.

    python -m benchmarks.memory
    python -m benchmarks.memory --batch_size 4

The steps are run on tensors without values, so that large sizes need neither their memory nor their time. Torch's
MemTracker counts the bytes of all tensors that exist at a time. It does not see what an operator needs while it runs,
nor what torch.compile would save.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.common import sizes
from benchmarks.nanogpt import NanoGPT
from zoo.models import GPT2, SAE, TopKSAE, unembedded_loss
from zoo.models.sae import selection

SMALL = {"n_layers": 12, "d_model": 768, "n_heads": 12, "context_length": 1024, "vocab_size": 50257, "batch_size": 32}
TOPK = {"d_in": 768, "d_sae": 24576, "k": 32, "n_vectors": 16384}
ZOO = "zoo"
PRECISIONS = {"float32": torch.float32, "bfloat16 autocast": torch.bfloat16}


class Peak(NamedTuple):
    """Memory at the moment of a training step at which most is held, in bytes."""

    total: int
    kept: int  # of it, weights and the optimizer's averages, which are held between steps as well


def peak(make: Callable[[], nn.Module], loss: Callable[[nn.Module], Tensor], dtype: torch.dtype) -> Peak:
    """Return the peak of the second training step with Adam; the first one makes Adam's averages.

    Args:
        make: Makes the network.
        loss: The training loss of a batch, given the network.
        dtype: Type of the forward pass; one other than float32 is that of autocast.
    """
    with FakeTensorMode():
        net = make()
        optimizer = torch.optim.Adam(net.parameters(), fused=True)

        def step() -> None:  # in Lightning's order
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                total = loss(net)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

        step()
        tracker = MemTracker()
        tracker.track_external(net, optimizer)
        with tracker:
            step()
        (seen,) = tracker.get_tracker_snapshot("peak").values()
    held = {str(getattr(kind, "value", kind)): n for kind, n in seen.items()}
    return Peak(held["Total"], held["Parameter"] + held["Buffer"] + held["Optstate"])


def gpt2_peaks(args: argparse.Namespace, dtype: torch.dtype) -> dict[str, Peak]:
    """Return the peaks of GPT-2 with the zoo's loss and with losses of all logits."""

    def text() -> tuple[Tensor, Tensor]:
        input_ids, targets = torch.zeros(2, args.batch_size, args.context_length, dtype=torch.int64)
        return input_ids, targets

    def plain(net: nn.Module) -> Tensor:
        input_ids, targets = text()
        return F.cross_entropy(net(input_ids).flatten(0, 1), targets.flatten())

    def zoo() -> Peak:
        return peak(lambda: GPT2(**sizes(args)), lambda net: net(*text()), dtype)

    found = {ZOO: zoo()}
    with patch.multiple(
        unembedded_loss, LOGITS_AT_ONCE={}, rows_of_zeros=lambda V, kind: -V % unembedded_loss.ALIGNMENT
    ):
        found["zoo, as many logits at a time as on a GPU"] = zoo()
    found["the same network, all logits at a time"] = peak(lambda: GPT2(**sizes(args)), plain, dtype)
    found["nanoGPT's manner"] = peak(lambda: NanoGPT(**sizes(args)), lambda net: net(*text()), dtype)
    return found


def dense_loss(net: SAE, x: Tensor, k: int) -> Tensor:
    """Return the mean squared error of a TopK autoencoder, with codes as a matrix (B, K) that is mostly 0."""
    values, indices = (x @ net.W_enc + net.encoder_bias()).topk(k)
    codes = x.new_zeros(len(x), net.d_sae, dtype=values.dtype).scatter(1, indices, values.relu())
    return F.mse_loss(codes @ net.W_dec + net.b_dec, x)


def topk_peaks(args: argparse.Namespace, dtype: torch.dtype) -> dict[str, Peak]:
    """Return the peaks of a TopK autoencoder, computed by the zoo and by dense products."""

    def make() -> nn.Module:
        return TopKSAE(args.d_in, args.d_sae, args.k)

    def x() -> Tensor:
        return torch.zeros(args.n_vectors, args.d_in)

    def zoo() -> Peak:
        return peak(make, lambda net: net.loss(x()).total, dtype)

    found = {ZOO: zoo()}
    with patch.object(selection, "CHUNK", args.n_vectors):
        found["zoo, all pre-activations at a time, as on a GPU"] = zoo()
    found["dense codes"] = peak(make, lambda net: dense_loss(net, x(), args.k), dtype)
    return found


def report(title: str, peaks: Callable[[torch.dtype], dict[str, Peak]]) -> None:
    columns = [name for precision in PRECISIONS for name in (f"{precision}, GB", "without weights", "ratio")]
    table = Table("", *columns, title=title, title_justify="left")
    found = {precision: peaks(dtype) for precision, dtype in PRECISIONS.items()}
    for name in found["float32"]:
        cells = []
        for of in found.values():
            this, zoo = of[name], of[ZOO]
            cells += [f"{this.total / 1e9:.3g}", f"{(this.total - this.kept) / 1e9:.3g}"]
            cells.append(f"{this.total / zoo.total:.2f}")
        table.add_row(name, *cells)
    Console().print(table)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**SMALL, **TOPK}.items():
        made.add_argument(f"--{name}", type=int, default=default, help=f"default {default:,}")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    report(
        f"GPT-2, {args.batch_size} x {args.context_length:,} tokens, V {args.vocab_size:,}",
        lambda dtype: gpt2_peaks(args, dtype),
    )
    report(
        f"TopK SAE {args.d_in} -> {args.d_sae:,}, k {args.k}, {args.n_vectors:,} vectors",
        lambda dtype: topk_peaks(args, dtype),
    )


if __name__ == "__main__":
    main()
