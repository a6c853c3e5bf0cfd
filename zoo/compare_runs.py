"""One report on several training runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.compare import settings_section
from zoo.errors import ZooError
from zoo.report import Chart, Report, Section, Series, Table, Verdict

PARTS = ("train/", "val/", "val_train/", "test/")  # beginnings of the names of curves and measurements that are shown
MOST_CURVES = 12
OWN = ("run_dir", "default_root_dir")  # settings that always differ

Curves = dict[str, tuple[list[float], list[float]]]  # name -> steps, values


def compared_runs(paths: Mapping[str, Path]) -> Report:
    """Return a report with the curves, last measurements and configs of several runs.

    Args:
        paths: Folders of the runs, by name.

    Raises:
        ZooError: If a run has no checkpoint, or its checkpoint is damaged.
    """
    parts = {name: _checkpoint(path) for name, path in paths.items()}
    told = {name: part.get("provenance") or {} for name, part in parts.items()}
    metrics = {name: _measured(one.get("metrics") or {}) for name, one in told.items()}
    configs = {name: _without(one.get("config") or {}) for name, one in told.items()}
    charts = _charts({name: curves(path) for name, path in paths.items()})
    rows: list[list[Any]] = [["network", *(part["class"] for part in parts.values()), *[None] * (len(parts) - 1)]]
    rows += [["steps", *(part.get("step") for part in parts.values()), *[None] * (len(parts) - 1)]]
    rows += [["seed", *(one.get("seed") for one in told.values()), *[None] * (len(parts) - 1)]]
    first, *others = parts
    differences: dict[str, dict[str, float]] = {}
    for key in dict.fromkeys(key for one in metrics.values() for key in one):
        values = [one.get(key) for one in metrics.values()]
        gaps = [None if v is None or values[0] is None else v - values[0] for v in values[1:]]
        differences[key] = {name: gap for name, gap in zip(others, gaps, strict=True) if gap is not None}
        rows.append([key, *values, *gaps])
    columns = ["at the end of the run", *parts, *(f"{name} - {first}" for name in others)]
    note = "Each run is a single one, so differences have no intervals; several seeds would be needed."
    final = _final(metrics)
    sections = [
        Section(
            "curves",
            "How do losses and measurements develop?",
            f"{len(charts)} curves are in two or more of the runs." if charts else "The runs have no curve in common.",
            charts=charts,
        ),
        Section(
            "end",
            "What was measured at the end of the runs?",
            final,
            tables=[Table(columns, rows, digits=4, note=note)],
            numbers={"metrics": metrics, "differences": differences},
        ),
        settings_section("Which settings of the runs differ?", "settings", configs),
    ]
    verdict = Verdict(final, note, numbers={"metrics": metrics, "differences": differences})
    return Report(f"Runs: {', '.join(parts)}", verdict, sections, title=f"How do {len(parts)} training runs differ?")


def curves(run: Path) -> Curves:
    """Return the curves of a run's TensorBoard files that begin with one of `PARTS`, by name, in order of steps.

    If a step was logged twice, as by a run that was interrupted and resumed, the last value counts.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, dict[int, float]] = {}
    for file in sorted(run.rglob("events.out.tfevents.*"), key=lambda path: path.name):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag.startswith(PARTS) and value.tensor.float_val:
                    found.setdefault(value.tag, {})[event.step] = float(value.tensor.float_val[0])
    return {tag: ([float(s) for s in sorted(own)], [own[s] for s in sorted(own)]) for tag, own in found.items()}


def _checkpoint(run: Path) -> dict[str, Any]:
    """Return the zoo's part of the run's last checkpoint."""
    from zoo.checkpoints import read_lightning

    file = run / "checkpoints" / "last.ckpt"
    if not file.is_file():
        raise ZooError(f"{run} has no results: the run has no checkpoints/last.ckpt yet")
    return read_lightning(file)[1]


def _measured(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the measurements that are numbers: losses first, and those on held-out data before others."""
    kept = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
    return dict(sorted(kept.items(), key=lambda item: _order(item[0])))


def _order(key: str) -> tuple[bool, bool, str]:
    return not key.startswith("val/"), not key.endswith("/loss"), key


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the run's own folder."""
    kept = {key: value for key, value in config.items() if key not in OWN}
    return kept | {"trainer": {key: value for key, value in config.get("trainer", {}).items() if key not in OWN}}


def _final(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return a sentence with the first measurement that all runs have."""
    shared = [key for key in next(iter(metrics.values())) if all(key in one for one in metrics.values())]
    if not shared:
        return "The runs have no measurement in common."
    values = ", ".join(f"{one[shared[0]]:.4g} ({name})" for name, one in metrics.items())
    return f"At the end of the runs {shared[0]} is {values}."


def _charts(runs: Mapping[str, Curves]) -> list[Chart]:
    shared = list(dict.fromkeys(tag for own in runs.values() for tag in own))
    shared = [tag for tag in shared if sum(tag in own for own in runs.values()) > 1]
    shared.sort(key=_order)
    return [
        Chart(
            f"curve-{tag.replace('/', '-')}",
            tag,
            [Series(name, *own[tag]) for name, own in runs.items() if tag in own],
            "optimizer steps",
            tag,
        )
        for tag in shared[:MOST_CURVES]
    ]
