"""The toy studies, one after the other; each keeps what it has finished."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from zoo import report
from zoo.studies import attention_features, explicit_gates, superposition_phases, universal_gates
from zoo.studies.tasks import write_json
from zoo.studies.toys import pentagon
from zoo.studies.toys.phases import read
from zoo.studies.toys.sections import write_up

PARTS = {
    "explicit-gates": "gates by random neurons and a readoff that is written down",
    "universal-gates": "gates by trained networks",
    "superposition-phases": "two features in one dimension",
    "pentagon": "five and six features in two dimensions",
    "attention-features": "attention in superposition",
}


def run(out: Path, seeds: int | None = None, jobs: int = 1, command: str = "") -> report.Report:
    """Do what is missing, then write `report.html`, `report.json` and `figures/` into the folder.

    Args:
        out: Folder of the study; every part has one in it, and what is finished there is not made again.
        seeds: Runs per arm; by default as many as every study has by itself.
        jobs: Processes, of one thread each.
        command: What was asked for, to be told in the report.

    Returns:
        The report.

    Raises:
        ZooError: If a number is out of range, or a folder holds a study with other settings.
    """
    options: dict[str, Any] = {"jobs": jobs} if seeds is None else {"jobs": jobs, "seeds": seeds}

    def phases(folder: Path) -> dict[str, Any]:
        superposition_phases.run(folder, **options)
        return read(folder, seeds)

    do: dict[str, Callable[[Path], Any]] = {
        "explicit-gates": lambda folder: explicit_gates.run(folder, **options),
        "universal-gates": lambda folder: universal_gates.run(folder, **options),
        "superposition-phases": phases,
        "pentagon": lambda folder: pentagon.run(folder, jobs),
        "attention-features": lambda folder: attention_features.run(folder, **options),
    }
    console, done = Console(stderr=True), dict[str, Any]()
    for number, (part, text) in enumerate(PARTS.items(), 1):
        console.rule(f"{number} of {len(PARTS)}: {text}", align="left")
        start = time.perf_counter()
        done[part] = do[part](out / part)
        _note_cost(out, part, time.perf_counter() - start, jobs)
    costs = json.loads((out / "costs.json").read_text("utf-8"))
    written = write_up(
        out, done, {"seeds": seeds, "jobs": jobs}, costs, command or f"python -m zoo study toys --out {out}"
    )
    report.write(written, out)
    return written


def _note_cost(out: Path, part: str, seconds: float, jobs: int) -> None:
    """Keep what a part took; one that was done already takes no time."""
    file = out / "costs.json"
    costs = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if seconds > costs.get(part, {}).get("seconds", 0):
        write_json(file, costs | {part: {"seconds": seconds, "jobs": jobs}})
