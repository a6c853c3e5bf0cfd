"""Train the run of a checkpoint again, and compare the results with the checkpoint."""

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
A_FEW = 0.02  # tolerance of the shares of dead and dense latents, because single latents differ by chance


def rebuild(name: str, out: str | Path, tolerance: float = 0.05) -> bool:
    """Train the run of a checkpoint again, and print its metrics next to those of the checkpoint.

    On the same machine, with the same versions and number of threads, the weights are the same bit for bit. On other
    machines rounding errors differ, and training amplifies them.

    Args:
        name: Name of a pretrained checkpoint, folder of a checkpoint or of a run, or Lightning .ckpt. If it has several
            steps, the last one is compared.
        out: Folder of the new run. If it contains the interrupted run, that run is resumed.
        tolerance: Largest relative difference of a validation metric. Shares of dead and of dense latents may always
            differ by 0.02.

    Returns:
        Whether all validation metrics agree or, if there are none, whether the weights are equal.

    Raises:
        ZooError: If there is no such checkpoint, it does not contain the settings of its run, or `out` contains another
            run.
    """
    source, out = Source.open(name), expanded(out)
    part = source.zoo_part() or {"provenance": {}}
    settings = part["provenance"].get("config")
    if not settings:
        raise ZooError(f"{name} does not say how it was made: only runs of `python -m zoo fit` can be rebuilt")
    end = settings["trainer"].get("max_steps", -1)
    if 0 < end != part["step"]:
        raise ZooError(f"{name} is step {part['step']} of a run of {end} steps; only the last step can be rebuilt")
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "rebuild.yaml"
        config.write_text(yaml.safe_dump(portable(settings), sort_keys=False), "utf-8")
        if code := cli.run(["fit", "--config", str(config), "--run_dir", str(out), "--ckpt_path", "auto"]):
            raise SystemExit(code)
    state, anew = read_lightning(out / "checkpoints" / "last.ckpt")
    old, new = part["provenance"].get("metrics", {}), anew["provenance"]["metrics"]
    table = Table("", "original", "rebuilt", "difference", title=f"{name} at step {part['step']}", title_justify="left")
    compared = {key: (old[key], new.get(key, math.nan)) for key in sorted(old) if key.startswith("val")}
    for key, (before, after) in compared.items():
        table.add_row(key, f"{before:.5g}", f"{after:.5g}", f"{after - before:+.1g}")
    Console().print(table)
    slack = {key: A_FEW if key.endswith("_latents") else 1e-6 for key in compared}
    beyond = [k for k, pair in compared.items() if not math.isclose(*pair, rel_tol=tolerance, abs_tol=slack[k])]
    for key in beyond:
        print(f"{key} differs by more than the tolerance of {tolerance:.0%}")
    if part["provenance"].get("corpus_fingerprint") != anew["provenance"].get("corpus_fingerprint"):
        print("note: the corpus differs, as the standard library does between versions of Python")
    dtype = getattr(torch, part.get("dtype") or "float32")  # what the weights were rounded to
    stored = source.load().state_dict()
    equal = all((state[key].to(dtype).to(tensor.dtype) == tensor).all() for key, tensor in stored.items())
    print(f"the weights are {'the same bit for bit' if equal else 'not the same bit for bit'}")
    return not beyond if compared else bool(equal)


def portable(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run, from "config" in a checkpoint's provenance, without the folders of its files."""
    kept = {key: value for key, value in settings.items() if key not in NOT_OF_THE_RUN}
    kept["trainer"] = {key: value for key, value in kept["trainer"].items() if key != "default_root_dir"}
    if init_args := kept["data"].get("init_args"):
        kept["data"] = {**kept["data"], "init_args": {k: v for k, v in init_args.items() if k != "cache_dir"}}
    return kept
