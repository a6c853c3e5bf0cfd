"""Rows per second of certified sparse coding: the zoo's `lasso`, scikit-learn and SPAMS.

    python -m benchmarks.sparse_coding_speed --rows FILE.npy --out FOLDER
    python -m benchmarks.sparse_coding_speed --full-pass

The problem: 2,000 centred rows of unit norm of an embedding, and 1,536 atoms learned from other rows of it. Without
--rows, the embedding is a stand-in: Gaussian rows, 384 wide, whose covariance has eigenvalues that fall as i^(-1/2), as
those of a small language model's token embedding about do.

Every contender takes its loosest setting, found beforehand, for which the zoo's `duality_gap` certifies each of its
rows to a relative gap of 1e-4. All solve the same problem in one process and take turns. The zoo's time includes its
certificate. With --out, time against the numbers of rows and atoms is drawn. --full-pass codes 50,257 x 768 rows in
3,072 atoms, and nothing else, in a process of its own; on a GPU once more, if there is one. Peers are left out where
they are not installed: `pip install scikit-learn spams-bin`.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else idle threads keep the cores from those of other libraries
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several times as fast for peers, whose products are small

import argparse
import platform
import resource
import sys
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
from zoo import ZooError, embedding
from zoo.models.sparse_coding import lasso

N_ROWS, N_ATOMS = 2000, 1536
AIMS = {0.2: ("8", "1.3"), 0.1: ("8", "1.3"), 0.05: ("1", "")}  # penalty -> against scikit-learn, against SPAMS
TRAINING_ROWS = 20_000  # at most, from which atoms are learned
SLOW_ROWS = 500  # from which scikit-learn's curves are extrapolated
SIZES = {"rows": (500, 1000, 2000, 4000, 8000), "atoms": (384, 768, 1536, 3072, 6144)}  # drawn at penalty .1
FULL_PASS, FULL_PENALTY = (50257, 768, 3072), 0.105  # rows, their width, and atoms


def stand_in(n_rows: int, d: int) -> Tensor:
    """Gaussian rows whose covariance has the eigenvalues i^(-1/2)."""
    scales = torch.arange(1.0, d + 1) ** -0.25
    return torch.randn(n_rows, d, generator=torch.Generator().manual_seed(0)).mul_(scales)


def unit_rows(W: Tensor) -> Tensor:
    """Rows (V, d) about their mean and of unit norm, in place."""
    W -= W.mean(0)
    return F.normalize(W, out=W)


def learned(rows: Tensor, n_atoms: int, penalty: float = 0.15, rounds: int = 4) -> Tensor:
    """Atoms (K, d) from rows (n, d): the lasso and the method of optimal directions in turns, from random rows."""
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
    """Seconds per row of each contender in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, contender in found.items():
            began = clock("cpu")
            contender.solve()
            seconds[name].append((clock("cpu") - began) / contender.rows)
    return {name: np.array(s) for name, s in seconds.items()}


def report(problem: Problem, rounds: int) -> None:
    """Rows per second, and how many times as long as the zoo others take in the same round."""
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


def draw(rows: Tensor, others: Tensor, D: Tensor, threads: int, rounds: int, out: Path) -> None:
    """Seconds against the number of rows, and of atoms, for which other rows serve; scikit-learn's from a few rows."""
    problems = {
        "rows": [Problem(rows[:n], D, 0.1, threads) for n in SIZES["rows"]],
        "atoms": [Problem(rows[:N_ROWS], others[:n], 0.1, threads) for n in SIZES["atoms"] if n <= len(others)],
    }
    titles = {"rows": f"{len(D):,} learned atoms", "atoms": f"{N_ROWS:,} rows; atoms are other rows"}
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (what, sizes) in zip(figure.subplots(1, 2), problems.items(), strict=True):
        curves: dict[str, list[float]] = {}
        for problem in sizes:
            few = problem._replace(X=problem.X[:SLOW_ROWS])
            found = contenders(problem, (ZOO, SPAMS_LARS, SPAMS_CD)) | contenders(few, (SKLEARN,))
            for name, seconds in timed(found, rounds).items():
                curves.setdefault(name, []).append(seconds.min() * len(problem.X))
        for name, curve in curves.items():
            axes.loglog(SIZES[what][: len(curve)], curve, marker="o", label=name)
        axes.set(xlabel=what, ylabel="seconds", title=titles[what])
        axes.set_xticks(SIZES[what], [f"{n:,}" for n in SIZES[what]], minor=False)
        axes.minorticks_off()
    axes.legend(fontsize="small")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "sparse_coding_cost.png", dpi=120)
    print(out / "sparse_coding_cost.png")


def full_pass(device: str) -> None:
    """Time and memory of all rows of an embedding of GPT-2's size; on a GPU also against its products of matrices."""
    (n, d, K), penalty = FULL_PASS, FULL_PENALTY
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
            f"products of matrices: {iterations:.1f} x 4 d K operations per row, which at {rate / 1e12:.1f} TFLOP/s, "
            f"measured, take {counter.get_total_flops() / rate:.2f} s, {counter.get_total_flops() / rate / seconds:.0%}"
        )


def product_rate(X: Tensor, D: Tensor, repeats: int = 50) -> float:
    """Operations per second of the product of rows (n, d) and atoms (K, d)."""
    X @ D.T
    began = clock(X.device.type)
    for _ in range(repeats):
        X @ D.T
    return 2 * len(X) * D.numel() * repeats / (clock(X.device.type) - began)


def peak_memory(device: str) -> float:
    """The most memory so far, of the process or, on a GPU, of its tensors, in GB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", help="an embedding: .npy, .safetensors, or any other source of the zoo")
    made.add_argument("--repeats", type=int, default=5, help="turns of each contender, default 5")
    made.add_argument("--threads", type=int, default=2, help="default 2")
    made.add_argument("--out", type=Path, help="folder for sparse_coding_cost.png; nothing is drawn without")
    made.add_argument("--full-pass", action="store_true", help="instead, code a whole embedding")
    return made


def main() -> None:
    args = parser().parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}")
    if args.full_pass:
        full_pass("cpu")
        if torch.cuda.is_available():
            full_pass("cuda")
        else:
            print("not measured on a GPU")
        return
    rows = unit_rows(embedding(args.rows) if args.rows else stand_in(30_000, 384))
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]
    most = SIZES["rows"][-1]
    if len(rows) < most + N_ATOMS:
        raise ZooError(f"{args.rows} has {len(rows)} rows; at least {most + N_ATOMS} are needed")
    rows, others = rows[:most], rows[most : most + TRAINING_ROWS]
    D = learned(others, N_ATOMS)
    for penalty in AIMS:
        report(Problem(rows[:N_ROWS], D, penalty, args.threads), args.repeats)
    if args.out:
        draw(rows, others, D, args.threads, min(args.repeats, 2), args.out)


if __name__ == "__main__":
    main()
