"""Section of `benchmarks.gpu` on sparse coding, compared with the CPU of the same machine."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_rows import Row, left_out, synchronise
from benchmarks.gpu_sae import write_profile
from benchmarks.sparse_coding_speed import FULL_PENALTY, product_rate, stand_in, unit_rows
from zoo.models.sparse_coding import Solution, basis_pursuit, lasso, orthogonal_matching_pursuit

CPU = "the CPU, {} threads"


class Pursuit(NamedTuple):
    """Sizes of a basis pursuit problem."""

    n: int  # rows
    d: int  # coordinates per row
    n_atoms: int
    n_on_cpu: int  # rows that the CPU solves; its time is extrapolated to all rows


PURSUITS = (Pursuit(20, 64, 256, 20), Pursuit(35, 256, 1024, 35), Pursuit(2000, 256, 1024, 64))


def section(device: torch.device, tiny: bool) -> list[Row]:
    """Measure the seconds of `lasso`, `basis_pursuit` and `orthogonal_matching_pursuit`."""
    sizes = (48, 8, 16) if tiny else (50257, 768, 3072)
    pursuits = (Pursuit(4, 8, 16, 4),) if tiny else PURSUITS
    made: list[Row] = []
    for measure in (
        lambda: lasso_rows(device, *sizes),
        *(lambda problem=problem: pursuit_rows(device, problem) for problem in pursuits),  # type: ignore[misc]
        lambda: matching_rows(device, *((48, 8, 16, 2) if tiny else (8192, 768, 3072, 32))),
    ):
        try:
            made += measure()
        except Exception as error:  # the rest of the table is still useful
            made.append(left_out("sparse coding", error))
    return made


def seconds(solve: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Return the median seconds of a call."""
    taken = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        solve()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def lasso_rows(device: torch.device, n: int, d: int, n_atoms: int) -> list[Row]:
    """Measure `lasso` on all rows of a stand-in for an embedding; count the rows that are not certified."""
    rows = unit_rows(stand_in(n + n_atoms, d)).to(device)
    X, D = rows[n_atoms:], rows[:n_atoms]
    solution = lasso(X, D, FULL_PENALTY)
    uncertified = n - int(solution.certified.sum())
    taken = seconds(lambda: lasso(X, D, FULL_PENALTY), device, 5)
    with FlopCounterMode(display=False) as counter:
        lasso(X, D, FULL_PENALTY)
    products = counter.get_total_flops() / product_rate(X[:16384], D)
    some = min(n, 512)
    cpu = torch.device("cpu")
    on_cpu = lasso(X[:some].cpu(), D.cpu(), FULL_PENALTY)
    cpu_seconds = seconds(lambda: lasso(X[:some].cpu(), D.cpu(), FULL_PENALTY), cpu) * n / some
    if device.type == "cuda" and (folder := os.environ.get("OUT")):
        write_profile(Path(folder) / "profile_lasso.txt", lambda: lasso(X, D, FULL_PENALTY), 0, 1)
    what = f"lasso {n:,} x {d}, {n_atoms:,} atoms"
    beside = f"{CPU.format(torch.get_num_threads())}, from {some} rows"
    return [
        Row(what, taken, f"s, {uncertified} rows not certified", beside, cpu_seconds / taken, "0.4 s, aim 0.25 s"),
        Row(f"{what}: passes of products", counter.get_total_flops() / (4 * d * n_atoms * n), "x 4 d K per row"),
        Row(f"{what}: share of products", 100 * products / taken, "%", required="aim 60 %"),
        Row(f"{what}: largest difference of an objective from the CPU's", difference(solution, on_cpu), "of it"),
    ]


def pursuit_rows(device: torch.device, problem: Pursuit) -> list[Row]:
    """Measure `basis_pursuit` on random rows."""
    n, d, n_atoms, some = problem
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, d, generator=generator)
    D = F.normalize(torch.randn(n_atoms, d, generator=generator))
    x, atoms = X.to(device), D.to(device)
    solution = basis_pursuit(x, atoms)
    taken = seconds(lambda: basis_pursuit(x, atoms), device, 3)
    on_cpu = basis_pursuit(X[:4], D)  # compiles
    began = time.perf_counter()
    on_cpu = basis_pursuit(X[:some], D)
    cpu_seconds = (time.perf_counter() - began) * n / some
    what = f"basis_pursuit {n:,} x {d}, {n_atoms:,} atoms"
    beside = CPU.format(torch.get_num_threads()) + ("" if some == n else f", from {some} rows")
    unit = f"s, {n - int(solution.certified.sum())} rows not certified"
    required = "faster than the CPU" if n >= 1000 else "ratio above 0.5"
    return [
        Row(what, taken, unit, beside, cpu_seconds / taken, required),
        Row(f"{what}: largest difference of an objective from the CPU's", difference(solution, on_cpu), "of it"),
    ]


def matching_rows(device: torch.device, n: int, d: int, n_atoms: int, l0: int) -> list[Row]:
    """Measure `orthogonal_matching_pursuit`."""
    rows = unit_rows(stand_in(n + n_atoms, d)).to(device)
    X, D = rows[n_atoms:], rows[:n_atoms]
    codes = orthogonal_matching_pursuit(X, D, l0)
    taken = seconds(lambda: orthogonal_matching_pursuit(X, D, l0), device, 3)
    some = min(n, 256)
    began = time.perf_counter()
    on_cpu = orthogonal_matching_pursuit(X[:some].cpu(), D.cpu(), l0)
    cpu_seconds = (time.perf_counter() - began) * n / some
    what = f"orthogonal matching pursuit {n:,} x {d}, {n_atoms:,} atoms, {l0} each"
    off = (codes.to_dense()[:some].cpu() - on_cpu.to_dense()).norm() / on_cpu.to_dense().norm()
    return [
        Row(what, taken, "s", f"{CPU.format(torch.get_num_threads())}, from {some} rows", cpu_seconds / taken),
        Row(f"{what}: difference of the codes from the CPU's", off.item(), "of their norm"),
    ]


def difference(solution: Solution, on_cpu: Solution) -> float:
    """Return the largest relative difference between the objectives and those of the CPU, over the CPU's rows."""
    theirs: Tensor = on_cpu.objective
    return ((solution.objective[: len(theirs)].cpu() - theirs) / theirs).abs().max().item()
