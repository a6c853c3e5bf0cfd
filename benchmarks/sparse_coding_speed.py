"""Rows per second of certified sparse coding: the zoo's `lasso`, scikit-learn and SPAMS.

    python -m benchmarks.sparse_coding_speed --rows FILE.npy --out FOLDER
    python -m benchmarks.sparse_coding_speed --full-pass

The problem consists of 2,000 centred rows of an embedding, scaled to unit norm, and 1,536 atoms that were learned from
its other rows. Without --rows, the embedding is a stand-in: Gaussian rows with 384 coordinates, whose covariance has
eigenvalues that fall as i^(-1/2), approximately as in the token embedding of a small language model.

Every contender uses its loosest setting for which the zoo's `duality_gap` certifies all rows to a relative gap of 1e-4.
This setting is determined beforehand. All contenders solve the same problem in turns in one process. The zoo's time
includes its certificates. With --out, the time is plotted against the numbers of rows and atoms. With --full-pass, the
benchmark instead codes a stand-in of 50,257 x 768 rows in 3,072 atoms, on the CPU and, if there is one, on a GPU.
Libraries that are not installed are skipped; to install them: `pip install scikit-learn spams-bin`.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # otherwise idle threads block the cores for other libraries
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several times faster for other libraries' small products

import argparse
import platform
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import clock
from benchmarks.sparse_coding_peers import SKLEARN, SPAMS_CD, SPAMS_LARS, TOLERANCE, ZOO, Contender, Problem, contenders
from zoo import embedding
from zoo.models.sparse_coding import lasso

SIZES = {"n_rows": (2000, 50257), "d_model": (384, 768), "n_atoms": (1536, 3072)}  # default; default with --full-pass
AIMS = {0.2: ("8", "1.3"), 0.1: ("8", "1.3"), 0.05: ("1", "")}  # penalty -> ratio to reach: scikit-learn, SPAMS
DRAWN = (1 / 4, 1 / 2, 1, 2, 4)  # times the problem's rows or atoms; scikit-learn is extrapolated from the fewest rows
TRAINING_ROWS = 10  # largest number of rows from which atoms are learned, as a multiple of the problem's rows
DRAWN_PENALTY, FULL_PENALTY = 0.1, 0.105


def stand_in(n_rows: int, d: int) -> Tensor:
    """Return Gaussian rows whose covariance has the eigenvalues i^(-1/2)."""
    scales = torch.arange(1.0, d + 1) ** -0.25
    return torch.randn(n_rows, d, generator=torch.Generator().manual_seed(0)).mul_(scales)


def unit_rows(W: Tensor) -> Tensor:
    """Centre rows (V, d) and scale them to unit norm, in place."""
    W -= W.mean(0)
    return F.normalize(W, out=W)


def learned(rows: Tensor, n_atoms: int, penalty: float = 0.15, rounds: int = 4) -> Tensor:
    """Learn atoms (K, d) from rows (n, d) by alternating the lasso and the method of optimal directions."""
    D = rows[:n_atoms]
    for _ in range(rounds):
        gram, cross = torch.zeros(n_atoms, n_atoms), torch.zeros_like(D)
        for part in rows.split(4096):
            codes = lasso(part, D, penalty, tolerance=1e-3).codes.to_dense()
            gram, cross = gram.addmm(codes.T, codes), cross.addmm(codes.T, part)
        unused = gram.diagonal() == 0
        gram.diagonal().add_(1e-4 * gram.diagonal().mean())
        D = torch.where(unused.unsqueeze(1), D, F.normalize(torch.linalg.solve(gram, cross))).contiguous()
    return D


def timed(found: dict[str, Contender], rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds per row of each contender in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, contender in found.items():
            began = clock("cpu")
            contender.solve()
            seconds[name].append((clock("cpu") - began) / contender.rows)
    return {name: np.array(s) for name, s in seconds.items()}


def report(problem: Problem, rounds: int) -> None:
    """Print rows per second, and the ratio of each contender's time to the zoo's time in the same round."""
    found = contenders(problem)
    seconds = timed(found, rounds)
    columns = ("rows / s, most (least)", "time / zoo: median (least to most)", "aim", "largest gap", "L0", "setting")
    table = Table("", *columns, title=f"penalty {problem.penalty}")
    aims = dict(zip(("scikit-learn", "SPAMS"), AIMS[problem.penalty], strict=True))
    best = {
        family: min(
            (n for n, c in found.items() if n.startswith(family) and c.gap <= TOLERANCE),
            key=lambda n: seconds[n].min(),
            default=None,
        )
        for family in aims
    }
    for name, c in found.items():
        speed, ratio = 1 / seconds[name], seconds[name] / seconds[ZOO]
        aim = next((f">= {aim}" for family, aim in aims.items() if aim and best[family] == name), "")
        table.add_row(
            name,
            f"{speed.max():,.0f} ({speed.min():,.0f})",
            f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
            aim,
            f"{c.gap:.1e}" + (" NOT CERTIFIED" if c.gap > TOLERANCE else ""),
            f"{c.l0:.1f}",
            c.setting + (f"; {c.rows} rows" if c.rows < len(problem.X) else ""),
        )
    Console(width=140).print(table)


def draw(rows: Tensor, others: Tensor, D: Tensor, args: argparse.Namespace) -> None:
    """Plot seconds against the number of rows and the number of atoms.

    In the second plot, other rows are used as atoms. The time of scikit-learn is extrapolated from a few rows.
    """
    sizes = {what: [int(share * n) for share in DRAWN] for what, n in (("rows", args.n_rows), ("atoms", len(D)))}
    settings = (DRAWN_PENALTY, args.threads)
    problems = {
        "rows": [Problem(rows[:n], D, *settings) for n in sizes["rows"]],
        "atoms": [Problem(rows[: args.n_rows], others[:n], *settings) for n in sizes["atoms"] if n <= len(others)],
    }
    titles = {"rows": f"{len(D):,} learned atoms", "atoms": f"{args.n_rows:,} rows; atoms are other rows"}
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), problems, strict=True):
        curves: dict[str, list[float]] = {}
        for problem in problems[what]:
            few = problem._replace(X=problem.X[: sizes["rows"][0]])
            found = contenders(problem, (ZOO, SPAMS_LARS, SPAMS_CD)) | contenders(few, (SKLEARN,))
            for name, seconds in timed(found, min(args.repeats, 2)).items():
                curves.setdefault(name, []).append(seconds.min() * len(problem.X))
        for name, curve in curves.items():
            axes.loglog(sizes[what][: len(curve)], curve, marker="o", label=name)
        axes.set(xlabel=what, ylabel="seconds", title=titles[what])
        axes.set_xticks(sizes[what], [f"{n:,}" for n in sizes[what]], minor=False)
        axes.minorticks_off()
    axes.legend(fontsize="small")
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "sparse_coding_cost.png", dpi=120)
    print(args.out / "sparse_coding_cost.png")


def full_pass(n: int, d: int, K: int, device: str) -> None:
    """Print the time and memory of coding n rows in K atoms; on a GPU also the share of time of matrix products."""
    penalty = FULL_PENALTY
    rows = unit_rows(stand_in(n + K, d)).to(device)
    X, D = rows[K:], rows[:K]
    lasso(X[:64], D, penalty)  # compiles
    before = peak_memory(device)
    began = clock(device)
    solution = lasso(X, D, penalty)
    seconds = clock(device) - began
    print(
        f"{n:,} x {d} rows, {K:,} atoms, penalty {penalty}, L0 {len(solution.codes.values()) / n:.1f}, on {device}: "
        f"{seconds:.1f} s, {n / seconds:,.0f} rows / s; {solution.certified.sum():,} rows certified, largest gap "
        f"{(solution.gap / solution.objective).max():.1e}; peak memory {peak_memory(device):.2f} GB, of which "
        f"{before:.2f} GB before"
    )
    if device == "cuda":
        rate = product_rate(X[:4096], D)
        with FlopCounterMode(display=False) as counter:
            lasso(X, D, penalty)
        iterations = counter.get_total_flops() / (4 * d * K * n)
        print(
            f"products of matrices: {iterations:.1f} x 4 d K operations per row; at the measured "
            f"{rate / 1e12:.1f} TFLOP/s they take {counter.get_total_flops() / rate:.2f} s, "
            f"{counter.get_total_flops() / rate / seconds:.0%} of the time"
        )


def product_rate(X: Tensor, D: Tensor, repeats: int = 50) -> float:
    """Return the operations per second of the matrix product of rows (n, d) and atoms (K, d)."""
    X @ D.T
    began = clock(X.device.type)
    for _ in range(repeats):
        X @ D.T
    return 2 * len(X) * D.numel() * repeats / (clock(X.device.type) - began)


def peak_memory(device: str) -> float:
    """Return the peak memory of the process or, on a GPU, of its tensors, in GB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", help="embedding: a .npy or .safetensors file, or any other source that the zoo reads")
    made.add_argument("--repeats", type=int, default=5, help="turns of each contender, default 5")
    made.add_argument("--threads", type=int, default=2, help="number of threads, default 2")
    made.add_argument("--out", type=Path, help="folder for sparse_coding_cost.png; by default nothing is plotted")
    made.add_argument("--full-pass", action="store_true", help="code a whole embedding instead")
    for name, (problem, whole) in SIZES.items():
        made.add_argument(f"--{name}", type=int, help=f"default {problem:,}, with --full-pass {whole:,}")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for name, defaults in SIZES.items():
        setattr(args, name, getattr(args, name) or defaults[args.full_pass])
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}")
    if args.full_pass:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            full_pass(args.n_rows, args.d_model, args.n_atoms, device)
        return
    most = int(DRAWN[-1] * args.n_rows)
    rows = embedding(args.rows) if args.rows else stand_in(most + TRAINING_ROWS * args.n_rows, args.d_model)
    if len(rows) < most + args.n_atoms:
        raise SystemExit(
            f"{args.rows or 'the stand-in'} has {len(rows):,} rows; at least {most + args.n_atoms:,} are needed"
        )
    rows = unit_rows(rows)[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]
    rows, others = rows[:most], rows[most : most + TRAINING_ROWS * args.n_rows]
    D = learned(others, args.n_atoms)
    for penalty in AIMS:
        report(Problem(rows[: args.n_rows], D, penalty, args.threads), args.repeats)
    if args.out:
        draw(rows, others, D, args)


if __name__ == "__main__":
    main()
