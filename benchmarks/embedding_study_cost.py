"""What the parts of `python -m zoo study embedding` cost, against rows V, dimensions D and atoms K.

    python -m benchmarks.embedding_study_cost [--largest]

Each part is done once, in one process of one thread, on Gaussian rows with the covariance of a trained embedding's kind
(eigenvalues that fall as a power) and made-up tokens. The study does the first 3 x (2 matrices per step and 3 more)
times, the second 45 times and the third 21 times, in as many processes as --jobs says.
"""

import argparse
import os
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.table import Table

SHAPES = ((2_000, 64, 256), (4_000, 64, 256), (4_000, 128, 256), (4_000, 128, 512), (8_000, 256, 1024))
LARGEST = (30_000, 384, 1536)
MEASURED = """
import json, logging, sys, tempfile, time, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
import numpy as np, torch
torch.set_num_threads(1)
import lightning
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
part, V, D, K = sys.argv[1], *map(int, sys.argv[2:])
out = Path(tempfile.mkdtemp())
(out / "runs").mkdir()
rows = torch.randn(V, D) * torch.arange(1, D + 1).float() ** -0.5
np.save(out / "W.npy", rows.numpy())
stems = [a + b + c for a in "bdfgklmnprt" for b in "aeiou" for c in "bdgklmnp"][: V // 3]
tokens = stems + [s + "s" for s in stems]
(out / "W.tokens.json").write_text(json.dumps(tokens + [f"token{i}" for i in range(V - len(tokens))]))
from zoo.studies import basis_pursuit, sparse_rows
from zoo.studies.embedding import structure
from zoo.studies.embedding.study import DICTIONARY_STEPS, PENALTIES
from zoo.models.sparse_coding import lasso
lasso(rows[:64], torch.nn.functional.normalize(rows[:64]), 0.5)  # compiles
start = time.perf_counter()
if part == "dictionary":
    task = basis_pursuit.Task(str(out / "W.npy"), None, "embedding", 0, 0, K, PENALTIES, DICTIONARY_STEPS, 0.0, 16, 0)
    basis_pursuit.solve(task, out)
elif part == "autoencoder":
    sparse_rows.do(sparse_rows.Task(str(out / "W.npy"), "embedding", 0, "TopK", 16, K, 1000, 512, 0.0), out)
else:
    (out / "structure").mkdir()
    structure.look(structure.Draw(str(out / "W.npy"), 0), out)
memory = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")][0] / 1e3
print(time.perf_counter() - start, memory)
"""
PARTS = {
    "dictionary": "dictionaries along 4 penalties",
    "autoencoder": "autoencoder, 1,000 steps",
    "structure": "circles, binding, rings",
}


def main() -> None:
    """Measure every part at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    largest = "{:,} rows in {} dimensions with {:,} atoms, too".format(*LARGEST)
    parser.add_argument("--largest", action="store_true", help=largest)
    arguments = parser.parse_args()
    table = Table(title="seconds (peak MB) in one thread", title_justify="left")
    for name in ("V", "D", "K", *PARTS.values()):
        table.add_column(name, justify="right")
    for shape in (*SHAPES, *([LARGEST] if arguments.largest else [])):
        cells = [_measure(part, *shape) for part in PARTS]
        table.add_row(*(f"{n:,}" for n in shape), *(f"{seconds:.1f} ({memory:.0f})" for seconds, memory in cells))
    Console().print(table)


def _measure(part: str, V: int, D: int, K: int) -> tuple[float, float]:
    words = [sys.executable, "-c", MEASURED, part, str(V), str(D), str(K)]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch, "PYTHONPATH": os.getcwd()}
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, memory = map(float, done.stdout.split()[-2:])
    return seconds, memory


if __name__ == "__main__":
    main()
