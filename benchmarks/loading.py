"""Cost of loading: time of whole processes, bytes read from disk, and memory, compared with other libraries.

    python -m benchmarks.loading [--megabytes 2000]

Each line is measured in a new Python process. The other libraries are safetensors and transformers. The number of bytes
is that which the kernel reports as read from disk, after the file was removed from its cache. This requires Linux and a
file system on a disk.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import zoo
from benchmarks import fresh_python
from zoo.models import GPT2
from zoo.source import Source

ROWS, WIDTH = 50_257, 768  # size of the embedding in the large file, the same as in GPT-2
WHOLE = {  # name -> code that a process runs
    "import zoo": "import zoo",
    "import torch": "import torch",
    "zoo.list_models()": "import zoo; zoo.list_models()",
    "zoo.embedding": "import zoo; zoo.embedding('gpt2-mini.learned')",
    "zoo.load, GPT-2": "import zoo; zoo.load('gpt2-mini.learned')",
    "zoo.load, SAE": "import zoo; zoo.load('sae-topk.gpt2-mini')",
    "zoo.load, toy": "import zoo; zoo.load('toy.u-and')",
    "transformers, the same GPT-2": "import transformers as hf; hf.GPT2LMHeadModel.from_pretrained('{mini}')",
}
MEASURED = """
import time
from benchmarks.fresh_python import kernel
{before}
memory, read, start = kernel('status', 'VmHWM'), kernel('io', 'read_bytes'), time.perf_counter()
{code}.sum()
print(time.perf_counter() - start, kernel('io', 'read_bytes') - read, (kernel('status', 'VmHWM') - memory) * 1024)
"""
LARGE = {
    "zoo.embedding": ("import zoo, torch, safetensors; zoo.embedding", "W = zoo.embedding('{folder}')"),
    "safetensors, whole file": (
        "from safetensors.torch import load_file",
        "W = load_file('{file}')['transformer.wte.weight'].clone()",
    ),
    "transformers, whole model": (
        "import transformers as hf; hf.GPT2LMHeadModel",
        "W = hf.GPT2LMHeadModel.from_pretrained('{folder}').transformer.wte.weight",
    ),
}


def seconds(code: str, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        fresh_python.run(code)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def forget(path: Path) -> None:
    """Remove a file from the cache of the kernel."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000, help="size of the large file, default 2000")
    parser.add_argument("--repeats", type=int, default=5, help="new processes per line, default 5")
    args = parser.parse_args(argv)
    mini = Source.open("gpt2-mini.learned").folder()
    table = Table("small checkpoints, whole process", "seconds", "without start of Python", title_justify="left")
    bare = seconds("pass", args.repeats)
    for name, code in WHOLE.items():
        took = seconds(code.format(mini=mini), args.repeats)
        table.add_row(name, f"{took:.2f}", f"{took - bare:.2f}")
    console = Console()
    console.print(table)
    n_layers = max(1, round((args.megabytes * 1e6 / 4 - ROWS * WIDTH) / (12 * WIDTH**2)))
    table = Table("W_E of a large file", "seconds", "MB read", "MB of memory")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        model = GPT2(ROWS, 128, WIDTH, n_layers, 12)
        file = zoo.save(model, Path(folder) / "model") / "model.safetensors"
        del model
        for name, (before, code) in LARGE.items():
            forget(file)
            places = {"file": file, "folder": file.parent}
            out = fresh_python.run(MEASURED.format(before=before, code=code.format(**places)))
            took, read, memory = map(float, out.split())
            table.add_row(name, f"{took:.2f}", f"{read / 1e6:,.0f}", f"{memory / 1e6:,.0f}")
        size = file.stat().st_size / 1e6
    console.print(table)
    print(f"the file has {size:,.0f} MB, W_E {ROWS * WIDTH * 4 / 1e6:,.0f} MB; torch {torch.__version__}")


if __name__ == "__main__":
    main()
