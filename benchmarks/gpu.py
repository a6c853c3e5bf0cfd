"""All GPU benchmarks of the zoo, compared with other libraries, in one table.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --only gpt2 drift --budget 200

It takes less than six minutes on one H100 or H200, without downloads. Libraries that are not installed are skipped, and
the output says so; to install them: `pip install sae-lens eai-sparsify`. If a section fails, the table shows its error,
and the other sections run. On a CPU, or with --tiny, all sizes are the smallest; this only tests that everything runs.
"""

import argparse
import gc
import importlib
import logging
import time
import traceback
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_rows import Row, forget_peak, left_out, seconds_per_step

SECTIONS = ("device", "drift", "gpt2", "sae", "solvers")


def ceilings(device: torch.device, tiny: bool) -> list[Row]:
    """Measure the limits of the device: the speed of a product of bfloat16 matrices, and of a copy."""
    n = 64 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = seconds_per_step(lambda: a @ b, device, 1 if tiny else 20, 1 if tiny else 5)
    x = torch.randn(4 * n * n, device=device)
    y = torch.empty_like(x)
    copying = seconds_per_step(lambda: y.copy_(x), device, 1 if tiny else 20, 1 if tiny else 5)
    return [
        Row(f"bfloat16 product, {n} x {n} x {n}", 2 * n**3 / seconds / 1e12, "TFLOP / s"),
        Row("copy, bytes read and written", 2 * 4 * x.numel() / copying / 1e12, "TB / s"),
    ]


def rows_of(name: str, device: torch.device, tiny: bool) -> list[Row]:
    """Return the rows of a section or, if it fails, one row with its error."""
    try:
        section = ceilings if name == "device" else importlib.import_module(f"benchmarks.gpu_{name}").section
        return section(device, tiny)
    except Exception as error:  # the other sections are useful without this one
        traceback.print_exc()
        return [left_out(name, error)]


def table_of(rows: Sequence[Row]) -> Table:
    table = Table("what", "seen", "unit", "ratio", "peer", "required")
    for row in rows:
        seen = "" if row.seen is None else f"{row.seen:,.0f}" if row.seen >= 1000 else f"{row.seen:.3g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        table.add_row(row.what, seen, row.unit, ratio, row.peer, row.required)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run, default all")
    cli.add_argument("--budget", type=float, default=360, help="seconds after which no section starts, default 360")
    cli.add_argument("--tiny", action="store_true", help="use the smallest sizes; on a CPU this is always so")
    args = cli.parse_args(argv)

    began = time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tiny = args.tiny or device.type == "cpu"
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    console, rows = Console(width=200), []
    for name in args.only:
        at = time.perf_counter() - began
        made = rows_of(name, device, tiny) if at < args.budget else [Row(name, None, f"not begun after {at:.0f} s")]
        rows += made
        print(f"{name}: {time.perf_counter() - began - at:.0f} s", flush=True)
        console.print(table_of(made))
        gc.collect()
        torch._dynamo.reset()
        forget_peak(device)
    print(f"{machine}, torch {torch.__version__}{', smallest sizes' if tiny else ''}")
    console.print(table_of(rows))


if __name__ == "__main__":
    main()
