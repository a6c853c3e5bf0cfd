"""Random networks per second: the zoo's `sample_counts`, a plain C++ loop, and batched torch as one would write it.

    python -m benchmarks.function_sampling
    python -m benchmarks.function_sampling --maps

Every contender draws all weights and biases of ReLU networks 7-40-40-1, evaluates the 128 inputs and counts the
distinct functions. The C++ program is benchmarks/function_sampling.cpp, compiled by `g++ -O2`; it is left out if there
is no compiler, and in turns with more than one thread. Torch draws 1,024 networks at a time and multiplies batches of
matrices. With one thread, times are seconds of processor time; with more, seconds. Contenders take turns, and ratios
are of turns in the same round. The shares of the zoo's time are those of its parts, each run alone on as many networks.
With --maps, the benchmark instead prints the samples per second of each of the zoo's maps in one thread.
"""

import argparse
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from zoo.functions.counts import Counts, count
from zoo.functions.keys import inputs, keys_from_tables
from zoo.functions.maps import MLP, BooleanMachine, LinearThreshold, Polynomial, RandomFourier, RandomTable
from zoo.functions.sampling import sample_counts
from zoo.functions.streams import LANES, fill_normals, new_stream

ZOO, CPP, TORCH = "zoo", "plain C++ loop", "batched torch"
AIMS = {CPP: ">= 5", TORCH: ">= 1.2"}
BATCH = 1024  # networks that torch draws at a time
N_INPUTS = 7
Turn = tuple[float, int, int]  # seconds, number of distinct functions, number of constant functions


def told(counts: Counts) -> tuple[int, int]:
    """Return the number of distinct functions, and of samples whose function is constant."""
    constant = np.isin(counts.keys, (0, 2**64 - 1)).all(1) & (counts.keys == counts.keys[:, :1]).all(1)
    return len(counts), int(counts.counts[constant].sum())


def torch_counts(widths: Sequence[int], n: int) -> Counts:
    """Sample networks in batches of matrix products, and count their functions."""
    keys = []
    for start in range(0, n, BATCH):
        size = min(BATCH, n - start)
        h = torch.from_numpy(inputs(N_INPUTS)).float().T.expand(size, -1, -1)
        sizes = [N_INPUTS, *widths, 1]
        for layer, (fan_in, n_out) in enumerate(pairwise(sizes)):
            W = torch.randn(size, n_out, fan_in) / fan_in**0.5
            h = torch.baddbmm(torch.randn(size, n_out, 1), W, h.relu() if layer else h)
        keys.append(keys_from_tables((h[:, 0] > 0).numpy()))
    return count(np.concatenate(keys))


def compiled_loop(folder: str) -> Path | None:
    """Compile the C++ program, and return it, or None if there is no compiler."""
    source, program = Path(__file__).with_suffix(".cpp"), Path(folder) / "loop"
    if shutil.which("g++") is None:
        return None
    subprocess.run(["g++", "-O2", "-o", program, source], check=True)
    return program


def contenders(args: argparse.Namespace, program: Path | None, threads: int) -> dict[str, Callable[[int], Turn]]:
    """Return, for every contender, a function that takes one turn, given a seed."""
    clock = time.process_time if threads == 1 else time.perf_counter
    net = MLP(N_INPUTS, tuple(args.widths))

    def timed(sample: Callable[[int], Counts]) -> Callable[[int], Turn]:
        def turn(seed: int) -> Turn:
            began = clock()
            counts = sample(seed)
            return clock() - began, *told(counts)

        return turn

    def cpp(seed: int) -> Turn:
        command = map(str, (program, args.n_samples, seed, N_INPUTS, *args.widths, 1))
        done = subprocess.run(list(command), capture_output=True, text=True, check=True)
        seconds, distinct, constant = done.stdout.split()
        return float(seconds), int(distinct), int(constant)

    found = {ZOO: timed(lambda seed: sample_counts(net, args.n_samples, seed))}
    if program is not None and threads == 1:
        found[CPP] = cpp
    return found | {TORCH: timed(lambda seed: torch_counts(args.widths, args.n_samples))}


def compare(args: argparse.Namespace, program: Path | None, threads: int) -> None:
    """Print functions per second, and the ratio of each contender's time to the zoo's time in the same round."""
    torch.set_num_threads(threads)
    turns = contenders(args, program, threads)
    turns[ZOO](0)  # compiles
    found: dict[str, list[Turn]] = {name: [] for name in turns}
    for seed in range(args.repeats):
        for name, turn in turns.items():
            found[name].append(turn(seed))
    title = f"{args.n_samples:,} networks {'-'.join(map(str, (N_INPUTS, *args.widths, 1)))}, threads: {threads}"
    columns = ("functions / s, most (least)", "time / zoo: median (least to most)", "aim", "distinct", "constant")
    table = Table("", *columns, title=title)
    own = np.array([seconds for seconds, *_ in found[ZOO]])
    for name, rows in found.items():
        seconds, distinct, constant = np.array(rows).T
        speed, ratio = args.n_samples / seconds, seconds / own
        table.add_row(
            name,
            f"{speed.max():,.0f} ({speed.min():,.0f})",
            f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
            AIMS.get(name, ""),
            f"{distinct.mean() / args.n_samples:.3f}",
            f"{constant.mean() / args.n_samples:.3f}",
        )
    Console(width=140).print(table)


def shares(args: argparse.Namespace) -> None:
    """Print the time of normal numbers, of everything but counting, and of all, in one thread."""
    torch.set_num_threads(1)
    net = MLP(N_INPUTS, tuple(args.widths))
    normals, words = np.empty(2**15, np.float32), np.empty(2 * LANES, np.uint32)
    calls = max(1, args.n_samples * net.n_parameters // len(normals))
    stream = new_stream(0, 0)

    def draw() -> None:
        for _ in range(calls):
            fill_normals(stream, words, normals)

    parts: dict[str, Callable[[], object]] = {
        "normal numbers": draw,
        "normal numbers and layers": lambda: net.fast_keys(args.n_samples, stream, 0),
        "all, with counting": lambda: sample_counts(net, args.n_samples),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(args.repeats):
        for name, part in parts.items():
            began = time.process_time()
            part()
            seconds[name].append(time.process_time() - began)
    table = Table("part of the zoo's time, one thread", "microseconds per function: median", "share")
    whole = np.median(seconds["all, with counting"])
    for name, times in seconds.items():
        table.add_row(name, f"{np.median(times) / args.n_samples * 1e6:.2f}", f"{np.median(times) / whole:.2f}")
    rate = calls * len(normals) / min(seconds["normal numbers"]) / 1e6
    buffer, generator = np.empty(2**20, np.float32), np.random.Generator(np.random.SFC64(0))
    began = time.process_time()
    generator.standard_normal(out=buffer, dtype=np.float32)
    peer = len(buffer) / (time.process_time() - began) / 1e6
    Console(width=140).print(table)
    print(f"millions of normal numbers per second: {rate:,.0f}; numpy (SFC64, ziggurat): {peer:,.0f}")


def every_map(args: argparse.Namespace) -> None:
    """Print the samples per second of each map in one thread."""
    torch.set_num_threads(1)
    table = Table("map, one thread", "parameters", "samples / s", f"distinct of {args.n_samples:,}")
    nets = [MLP(), MLP(activation="tanh"), MLP(widths=(40,)), MLP(widths=(40,) * 5)]
    others = [LinearThreshold(), Polynomial(degree=2), Polynomial(degree=4), RandomFourier(), BooleanMachine()]
    for map in (*nets, *others, RandomTable()):
        sample_counts(map, 1)  # compiles
        began = time.process_time()
        counts = sample_counts(map, args.n_samples)
        seconds = time.process_time() - began
        table.add_row(map.name, f"{map.n_parameters:,}", f"{args.n_samples / seconds:,.0f}", f"{len(counts):,}")
    Console(width=140).print(table)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--n_samples", type=int, default=2**15, help="networks per turn, default 32,768")
    made.add_argument("--widths", type=int, nargs="+", default=[40, 40], help="hidden layers, default 40 40")
    made.add_argument("--repeats", type=int, default=5, help="turns of each contender, default 5")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads, default 1 2")
    made.add_argument("--maps", action="store_true", help="time each of the zoo's maps instead")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, numpy {np.__version__}")
    before = torch.get_num_threads()
    try:
        if args.maps:
            every_map(args)
            return
        with tempfile.TemporaryDirectory() as folder:
            program = compiled_loop(folder)
            for threads in args.threads:
                compare(args, program, threads)
        shares(args)
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
