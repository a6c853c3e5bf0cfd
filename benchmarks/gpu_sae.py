"""Section of `benchmarks.gpu` on sparse autoencoders, with optional profiles of their training steps."""

import os
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_rows import Row, left_out
from benchmarks.sae_contenders import bare, network
from benchmarks.sae_speed import BARE, LIGHTNING, N_BATCHES, run

REQUIRED = {  # variant -> targets for the bare loop and for Lightning
    "topk": ("5x SAELens, 2x sparsify", "5 ms"),
    "relu": ("12 ms", "9 ms"),
}
NAMES = {"topk": "TopK SAE", "relu": "ReLU SAE"}
FULL = {"d_in": 768, "d_sae": 24576, "batch_size": 16384, "k": 32, "steps": 10, "rounds": 5}
TINY = {"d_in": 16, "d_sae": 64, "batch_size": 64, "k": 4, "steps": 2, "rounds": 1}


def section(device: torch.device, tiny: bool) -> list[Row]:
    """Measure milliseconds per training step of the zoo, in a bare loop and in Lightning, and of other libraries."""
    made: list[Row] = []
    for variant in ("topk", "relu"):
        args = setting(device, tiny)
        try:
            made += measured(args, variant)
        except Exception as error:  # the rest of the table is still useful
            made.append(left_out(NAMES[variant], error))
    return made


def setting(device: torch.device, tiny: bool) -> Namespace:
    """Return sizes, precision and numbers of steps."""
    precision = "bf16-mixed" if device.type == "cuda" else "32-true"
    sizes = TINY if tiny else FULL
    training = {"train_steps": 2 if tiny else 200, "train_batch_size": 16 if tiny else 2048}
    return Namespace(device=device.type, precision=precision, l1=5.0, dead_after=10_000_000, **sizes, **training)


def measured(args: Namespace, variant: str) -> list[Row]:
    """Return the rows of all contenders, at the start of training and, for ReLU, after some training."""
    rows = sparse_rows(args)
    taken = run(args, variant, rows)
    sizes = f"{args.d_in} -> {args.d_sae:,}, batch {args.batch_size:,}" + (f", k {args.k}" * (variant == "topk"))
    made = []
    for state in dict.fromkeys(key[1] for key in taken.seconds):
        times = {name: 1000 * float(np.median(s)) for (name, m), s in taken.seconds.items() if m == state}
        peers = {name: t for name, t in times.items() if name not in (BARE, LIGHTNING)}
        for place, name in enumerate((BARE, LIGHTNING)):
            what = f"{NAMES[variant]} {sizes}: {name}, {state}, {taken.on[name, state]:.0f} on"
            made.append(Row(what, times[name], "ms / step", required=REQUIRED[variant][place]))
            made += [Row(what, times[name], "ms / step", peer, t / times[name]) for peer, t in peers.items()]
        made += [Row(f"{NAMES[variant]} {sizes}: {peer}, {state}", t, "ms / step") for peer, t in peers.items()]
    if args.device == "cuda" and (folder := os.environ.get("OUT")):
        torch.manual_seed(0)
        contender = bare(args, network(args, variant), rows[: 2 * args.batch_size])
        write_profile(Path(folder) / f"profile_{variant}.txt", lambda: contender.step(rows[: args.batch_size]))
        write_waits(Path(folder) / f"waits_{variant}.txt", args, variant, rows)
    return made


def sparse_rows(args: Namespace) -> torch.Tensor:
    """Return the rows (N, d_in) of all batches: sums of 16 of K random atoms, plus noise."""
    generator = torch.Generator(args.device).manual_seed(0)
    options: dict[str, Any] = {"generator": generator, "device": args.device}
    n = N_BATCHES * args.batch_size
    atoms = F.normalize(torch.randn(args.d_sae, args.d_in, **options))
    chosen = torch.randint(args.d_sae, (n, 16), **options)
    rows = F.embedding_bag(chosen, atoms, mode="sum", per_sample_weights=torch.rand(n, 16, **options) + 0.5)
    rows += rows.std() * 0.2 * torch.randn(rows.shape, **options)
    return (rows - rows.mean(0)) / rows.std()


def write_profile(path: Path, step: Callable[[], Any], warmup: int = 3, steps: int = 5) -> None:
    """Write the slowest kernels and operators of a few steps to a file."""
    for _ in range(warmup):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kernels = [event for event in seen.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    total = sum(event.self_device_time_total for event in kernels) / steps
    lines = [f"{total:.0f} us of kernels per step, {sum(event.count for event in kernels) / steps:.0f} launches"]
    for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:25]:
        lines.append(f"{event.self_device_time_total / steps:9.1f} us {event.count / steps:6.1f} x  {event.key[:110]}")
    lines += ["", "by operator", seen.key_averages().table(sort_by="self_cuda_time_total", row_limit=25)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{path.name}: {lines[0]}", *lines[1:13], sep="\n", flush=True)


def write_waits(path: Path, args: Namespace, variant: str, rows: torch.Tensor) -> None:
    """Write which lines of code wait for the device in a run in Lightning."""
    short = Namespace(**vars(args) | {"steps": 5, "rounds": 1, "train_steps": 1})
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run(short, variant, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(f"{w.filename}:{w.lineno} {str(w.message).splitlines()[0][:80]}" for w in seen)
    path.write_text("\n".join(f"{n} x {place}" for place, n in places.most_common()) + "\n", "utf-8")
