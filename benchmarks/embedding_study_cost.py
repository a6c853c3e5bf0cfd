"""What the parts of `python -m zoo study embedding` cost, against rows V, dimensions D and atoms K.

    python -m benchmarks.embedding_study_cost
    python -m benchmarks.embedding_study_cost --shape 30000 384 1536

Each part is done once, in a fresh Python with one thread, on Gaussian rows with the covariance of a trained embedding's
kind (eigenvalues that fall as a power) and made-up tokens. The study does the first 3 x (2 matrices per step and 3
more) times, the second 45 times and the third 21 times, in as many processes as --jobs says. Needs Linux, whose `/proc`
tells the memory.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from benchmarks import fresh_python
from zoo.models.sparse_coding import lasso
from zoo.studies import basis_pursuit, sparse_rows
from zoo.studies.embedding import structure
from zoo.studies.embedding.study import DICTIONARY_STEPS, PENALTIES

SHAPES = ((2_000, 64, 256), (4_000, 64, 256), (4_000, 128, 256), (4_000, 128, 512), (8_000, 256, 1024))


def dictionaries(matrix: Path, n_atoms: int, steps: int) -> None:
    settings = (n_atoms, PENALTIES, DICTIONARY_STEPS)
    task = basis_pursuit.Task(str(matrix), None, "embedding", 0, 0, *settings, frequency_power=0.0, gauged=0)
    basis_pursuit.solve(task, matrix.parent)


def autoencoder(matrix: Path, n_atoms: int, steps: int) -> None:
    task = sparse_rows.Task(str(matrix), "embedding", 0, "TopK", 16, n_atoms, steps, 512, frequency_power=0.0)
    sparse_rows.do(task, matrix.parent)


def structures(matrix: Path, n_atoms: int, steps: int) -> None:
    structure.look(structure.Draw(str(matrix), null=0), matrix.parent)


PARTS: dict[str, Callable[[Path, int, int], None]] = {
    "dictionaries along 4 penalties": dictionaries,
    "autoencoder": autoencoder,
    "circles, binding, rings": structures,
}


def measure(part: str, V: int, D: int, K: int, steps: int) -> None:
    """Do a part of the study, and print its seconds and the most MB that the process has had."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    stems = [a + b + c for a in "bdfgklmnprt" for b in "aeiou" for c in "bdgklmnp"][: V // 3]
    tokens = stems + [s + "s" for s in stems]
    with tempfile.TemporaryDirectory() as folder:
        matrix = Path(folder, "W.npy")
        np.save(matrix, (torch.randn(V, D) * torch.arange(1, D + 1) ** -0.5).numpy())
        names = tokens + [f"token{i}" for i in range(V - len(tokens))]
        matrix.with_suffix(".tokens.json").write_text(json.dumps(names), "utf-8")
        for results in ("runs", "structure"):
            matrix.with_name(results).mkdir()
        lasso(some := F.normalize(torch.randn(64, D)), some, 0.5)  # compiles
        start = time.perf_counter()
        PARTS[part](matrix, K, steps)
        print(time.perf_counter() - start, fresh_python.kernel("status", "VmHWM") / 1e3)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every part at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, metavar=("V", "D", "K"), help="this one instead of five")
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps of the autoencoder, default 1000")
    args = parser.parse_args(argv)
    title = f"seconds (peak MB) in one thread, {args.steps:,} steps of the autoencoder"
    table = Table(title=title, title_justify="left")
    for name in ("V", "D", "K", *PARTS):
        table.add_column(name, justify="right")
    for shape in [args.shape] if args.shape else SHAPES:
        cells = []
        for part in PARTS:
            code = (
                f"from benchmarks.embedding_study_cost import measure; measure({part!r}, *{tuple(shape)}, {args.steps})"
            )
            seconds, megabytes = map(float, fresh_python.run(code, OMP_NUM_THREADS="1").split()[-2:])
            cells.append(f"{seconds:.1f} ({megabytes:.0f})")
        table.add_row(*(f"{n:,}" for n in shape), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
