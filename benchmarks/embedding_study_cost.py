"""Time and memory of the parts of `python -m zoo study embedding`, by numbers of rows V, dimensions D and atoms K.

    python -m benchmarks.embedding_study_cost
    python -m benchmarks.embedding_study_cost --shape 30000 384 1536

Each part is run once, in a new Python process with one thread, on Gaussian rows and made-up tokens. The eigenvalues of
the covariance fall as a power, as in trained embeddings. The last two columns are the time of one core for the whole
study, without training runs, and for `--quick`. They are sums over all tasks of the study: each task's own estimate,
multiplied by the measured time over the estimate of the part of its kind. Times are of the processor, so that other
work changes them little. The benchmark requires Linux, because it reads the memory from `/proc`.
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
from zoo.shared_tasks.dictionaries import LearnDictionaries
from zoo.shared_tasks.pursuit import PENALTIES, compared_at, dictionary_steps, rows_gauged
from zoo.shared_tasks.rows import Rows
from zoo.shared_tasks.structure import SearchStructure, known_families
from zoo.source import Source
from zoo.studies.embedding import Embedding
from zoo.studies.sparse_rows import TrainAutoencoder
from zoo.study import Task, Work, all_tasks

SHAPES = ((2_000, 64, 256), (4_000, 128, 512), (8_000, 256, 1024), (30_000, 384, 1536), (50_000, 768, 3072))


def dictionaries(rows: Rows, n_atoms: int, steps: int) -> Task:
    shared = (n_atoms, PENALTIES, dictionary_steps(rows, n_atoms), 0.0)
    D = rows.source.shape(None)[1]
    return LearnDictionaries(rows, "embedding", 0, 0, *shared, compared_at(D), rows_gauged(D, None))


def autoencoder(rows: Rows, n_atoms: int, steps: int) -> Task:
    return TrainAutoencoder(rows, "embedding", 0, "TopK", 16, n_atoms, steps, 512, frequency_power=0.0)


def structures(rows: Rows, n_atoms: int, steps: int) -> Task:
    return SearchStructure(rows, 0, known_families(None))


PARTS: dict[str, Callable[[Rows, int, int], Task]] = {
    "dictionaries along 4 penalties": dictionaries,
    "autoencoder": autoencoder,
    "circles, binding, rings": structures,
}


def measure(part: str, V: int, D: int, K: int, steps: int) -> None:
    """Run a part of the study, and print its seconds, its peak memory in MB, and estimates of the study's seconds.

    There are three estimates, from the tasks' own: of this task, of all tasks of its kind, and of these with `--quick`.
    """
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
        rows = Rows(Source.open(str(matrix)), None)
        work = Work({rows: rows.do(Work({}, Path(folder)))}, Path(folder))
        lasso(some := F.normalize(torch.randn(64, D)), some, 0.5)  # compiles
        task = PARTS[part](rows, K, steps)
        start = time.process_time()
        task.do(work)
        taken, megabytes = time.process_time() - start, fresh_python.kernel("status", "VmHWM") / 1e3
        told = [task.seconds() or 0]
        for quick in (False, True):
            tasks = all_tasks(Embedding((str(matrix),), n_atoms=None if quick else K, quick=quick))
            told.append(sum(own.seconds() or 0 for own in tasks if type(own) is type(task)))
        print(taken, megabytes, *told)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every part at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, metavar=("V", "D", "K"), help="a single size instead of five")
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps for the autoencoder, default 1000")
    args = parser.parse_args(argv)
    title = f"seconds (peak MB) in one thread, {args.steps:,} steps of the autoencoder"
    table = Table(title=title, title_justify="left")
    for name in ("V", "D", "K", *PARTS, "study, minutes", "quick, minutes"):
        table.add_column(name, justify="right")
    for shape in [args.shape] if args.shape else SHAPES:
        cells, whole = [], np.zeros(2)
        for part in PARTS:
            code = (
                f"from benchmarks.embedding_study_cost import measure; measure({part!r}, *{tuple(shape)}, {args.steps})"
            )
            printed = fresh_python.run(code, OMP_NUM_THREADS="1").split()[-5:]
            seconds, megabytes, own, *of_study = map(float, printed)
            cells.append(f"{seconds:.1f} ({megabytes:.0f})")
            whole += seconds / own * np.array(of_study) / 60
        table.add_row(*(f"{n:,}" for n in shape), *cells, *(f"{minutes:.1f}" for minutes in whole))
    Console().print(table)


if __name__ == "__main__":
    main()
