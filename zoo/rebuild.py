"""Make a checkpoint anew from what it says of itself, and compare the two."""

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from zoo import cli
from zoo.checkpoints import read_lightning
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.source import Source

NOT_OF_THE_RUN = ("run_dir", "base", "ckpt_path")
A_FEW = 0.02  # share of latents, of which a few more or less dead or dense are chance


def rebuild(name: str, out: str | Path, tolerance: float = 0.05) -> bool:
    """Train a checkpoint's run again and print its metrics beside the old ones.

    On the machine, with the versions and the number of threads that the checkpoint was made with, weights come out bit
    for bit the same; elsewhere rounding differs, and training amplifies it.

    Args:
        name: Name of a pretrained checkpoint, folder of a checkpoint or of a run, or Lightning .ckpt; of several steps
            the last is compared.
        out: Folder of the new run; an interrupted one goes on.
        tolerance: Largest difference of a validation metric, as a share of it; shares of dead or dense latents may
            differ by 0.02 in any case.

    Returns:
        Whether all validation metrics agree or, of a run without any, the weights.

    Raises:
        ZooError: If there is no such checkpoint, it does not say how it was made, or `out` holds another run.
    """
    source, out = Source.open(name), expanded(out)
    part = source.zoo_part() or {"provenance": {}}
    settings = part["provenance"].get("config")
    if not settings:
        raise ZooError(f"{name} does not say how it was made: it was not trained by `python -m zoo fit`")
    end = settings["trainer"].get("max_steps", -1)
    if 0 < end != part["step"]:
        raise ZooError(f"{name} is step {part['step']} of a run of {end}; only a run's end can be rebuilt")
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "rebuild.yaml"
        config.write_text(yaml.safe_dump(portable(settings), sort_keys=False), "utf-8")
        if code := cli.run(["fit", "--config", str(config), "--run_dir", str(out), "--ckpt_path", "auto"]):
            raise SystemExit(code)
    state, anew = read_lightning(out / "checkpoints" / "last.ckpt")
    old, new = part["provenance"].get("metrics", {}), anew["provenance"]["metrics"]
    table = Table("", "shipped", "rebuilt", "difference", title=f"{name} at step {part['step']}", title_justify="left")
    compared = {key: (old[key], new.get(key, math.nan)) for key in sorted(old) if key.startswith("val")}
    for key, (before, after) in compared.items():
        table.add_row(key, f"{before:.5g}", f"{after:.5g}", f"{after - before:+.1g}")
    Console().print(table)
    slack = {key: A_FEW if key.endswith("_latents") else 1e-6 for key in compared}
    beyond = [k for k, pair in compared.items() if not math.isclose(*pair, rel_tol=tolerance, abs_tol=slack[k])]
    for key in beyond:
        print(f"{key} is beyond the tolerance of {tolerance:.0%}")
    if part["provenance"].get("corpus_fingerprint") != anew["provenance"].get("corpus_fingerprint"):
        print("note: the corpus is another one, such as the standard library of another version of Python")
    dtype = getattr(torch, part.get("dtype") or "float32")  # what the weights were rounded to
    stored = source.load().state_dict()
    equal = all((state[key].to(dtype).to(tensor.dtype) == tensor).all() for key, tensor in stored.items())
    print(f"the weights are {'bit for bit the same' if equal else 'others in their last bits, or more'}")
    return not beyond if compared else bool(equal)


def portable(settings: dict[str, Any]) -> dict[str, Any]:
    """A run's settings, as a checkpoint's provenance has them under "config", without the folders it wrote to."""
    kept = {key: value for key, value in settings.items() if key not in NOT_OF_THE_RUN}
    kept["trainer"] = {key: value for key, value in kept["trainer"].items() if key != "default_root_dir"}
    if init_args := kept["data"].get("init_args"):
        kept["data"] = {**kept["data"], "init_args": {k: v for k, v in init_args.items() if k != "cache_dir"}}
    return kept
