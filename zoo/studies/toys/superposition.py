"""Toy models of superposition: B11."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from zoo.report import Chart, Section, Series
from zoo.studies.embedding.numbers import spelled
from zoo.studies.superposition_phases import PHASES
from zoo.studies.toys.measured import COLORS
from zoo.studies.toys.pentagon import CLOSE, FEATURES

SHAPES = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon"}


def best(polygon: dict[str, Any]) -> dict[str, Any]:
    """The network of least loss: `loss`, the mean `length` of its directions, and the mean `bias`."""
    k = int(np.argmin(polygon["loss"]))
    W, b = np.array(polygon["directions"][k]), np.array(polygon["bias"][k])
    return {
        "network": k,
        "loss": polygon["loss"][k],
        "length": float(np.linalg.norm(W, axis=1).mean()),
        "bias": float(b.mean()),
    }


def reached(polygon: dict[str, Any]) -> str:
    """How many networks reach the regular polygon, in words."""
    name = FEATURES[polygon["n_features"]]
    return (
        f"{polygon['reach']} of {len(polygon['loss'])} networks reach the {name} (share {spelled(polygon['share'], 2)})"
    )


def section(phases: dict[str, Any], polygons: list[dict[str, Any]], folder: Path, command: str) -> Section:
    """B11.

    Args:
        phases: See `phases.read`.
        polygons: See `pentagon.run`.
        folder: Of the study `superposition_phases`.
        command: What makes that again.
    """
    points, same = len(phases["agree"]), sum(phases["agree"])
    found = []
    for polygon in polygons:
        wanted, got = polygon["regular"][str(polygon["n_features"])], best(polygon)
        found.append(
            f"{reached(polygon)}; the best has a loss of {got['loss']:.6f} per input (the regular one "
            f"{wanted['loss']:.6f}), directions of length {got['length']:.4f} ({wanted['length']:.4f}) and a bias of "
            f"{got['bias']:.4f} ({wanted['bias']:.4f})"
        )
    finding = (
        f"{'. '.join(found)}. Two features in one dimension: the best of {phases['seeds']} networks is in the phase "
        f"of the least expected loss at {same} of {points} points, a single one at {spelled(phases['seed_agrees'])} "
        f"of them; at equal importance superposition ends at a density of {spelled(phases['flip'])}, in theory at "
        f"{phases['theory_flip']:.3f}."
    )
    return Section(
        "B11",
        "When do features share dimensions, and in which shapes?",
        finding,
        tables=f"{_table(polygons)}\n\n{phases['text']}",
        charts=[
            *(_directions(polygon) for polygon in polygons),
            _losses(polygons),
            _map(phases, "theory", "Phases in theory: the least expected loss"),
            _map(phases, "trained", f"Phases trained: the best of {phases['seeds']} networks"),
        ],
        pictures=[folder / "phases.png"],
        null_models=(
            "The regular polygons, found by minimising the exact loss over the length of the directions and the biases "
            "alone, also those that leave features out; and for two features the least expected loss over weights and "
            "biases, from descents of every kind."
        ),
        not_shown=(
            "More features and dimensions, importances that differ (but for two features), correlated features, other "
            "distributions of their size. Absolute values computed in superposition (toy/absolute_value.yaml trains "
            "them). How often a network reaches a polygon depends on how it is initialised and trained."
        ),
        command=f"{command}\npython -m zoo fit --config cli_configs/toy/pentagon.yaml  # and --data.n_features 6",
        numbers={
            "polygons": [{**polygon, "best": best(polygon)} for polygon in polygons],
            "phases": {key: value for key, value in phases.items() if key != "text"},
        },
    )


def _table(polygons: Sequence[dict[str, Any]]) -> str:
    columns = [
        "features",
        "networks that reach it",
        "share",
        "loss per input: regular",
        "best",
        "length: regular",
    ]
    columns += ["best", "bias: regular", "best", "dimensionality of a feature", "features kept, and networks"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for polygon in polygons:
        n, got = polygon["n_features"], best(polygon)
        wanted = polygon["regular"][str(n)]
        kept = ", ".join(f"{k}: {polygon['kept'].count(k)}" for k in sorted(set(polygon["kept"])))
        cells = [f"{n}: {FEATURES[n]}", f"{polygon['reach']} of {len(polygon['loss'])}", spelled(polygon["share"], 2)]
        cells += [f"{wanted['loss']:.6f}", f"{got['loss']:.6f}"]
        cells += [f"{v:.5f}" for v in (wanted["length"], got["length"], wanted["bias"], got["bias"])]
        share = np.mean(polygon["dimensionality"][got["network"]])
        lines.append(f"| {' | '.join([*cells, f'{share:.3f} (regular {2 / n:.3f})', kept])} |")
    note = (
        f"A network reaches a polygon if its loss is at most {100 * CLOSE:g} % above. Of shares: 95 % Wilson intervals."
    )
    return "\n".join([*lines, "", note])


def _directions(polygon: dict[str, Any]) -> Chart:
    n, k = polygon["n_features"], best(polygon)["network"]
    W = np.array(polygon["directions"][k])
    order = np.argsort(np.arctan2(W[:, 1], W[:, 0]))
    around = W[[*order, order[0]]]
    names = [str(i + 1) for i in range(n)]
    return Chart(
        f"b11-{FEATURES[n]}",
        f"{n} features in 2 dimensions: the best network",
        [
            Series("shape", around[:, 0].tolist(), around[:, 1].tolist(), "dotted", color=COLORS[1]),
            Series(
                "features", W[:, 0].tolist(), W[:, 1].tolist(), "points", labels=names, written=True, color=COLORS[0]
            ),
        ],
        map=True,
        caption=f"Directions of the network of least loss among {len(polygon['loss'])}.",
    )


def _losses(polygons: Sequence[dict[str, Any]]) -> Chart:
    lines = []
    for polygon, color in zip(polygons, cycle(COLORS)):
        n, losses = polygon["n_features"], sorted(polygon["loss"])
        lines.append(Series(f"{n} features", list(range(1, len(losses) + 1)), losses, "points", color=color))
        for corners, shape in SHAPES.items():
            if str(corners) in polygon["regular"] and corners >= n - 1:
                told = f"regular {shape}" + ("" if corners == n else ", one feature left out")
                level = polygon["regular"][str(corners)]["loss"]
                ends = [1, len(losses)]
                lines.append(Series(f"{n} features", ends, [level] * 2, "dashed", labels=[told] * 2, color=color))
    return Chart(
        "b11-losses",
        "Losses of all networks, in order",
        lines,
        "network",
        "loss per active input",
        caption="Dashed: the regular polygon of all features, and that of all but one, above it.",
    )


def _map(phases: dict[str, Any], key: str, title: str) -> Chart:
    p, importance, kinds = (np.array(phases[name]) for name in ("p", "importance", key))
    return Chart(
        f"b11-phases-{key}",
        title,
        [
            Series(name, p[kinds == kind].tolist(), importance[kinds == kind].tolist(), "points", color=COLORS[kind])
            for kind, name in enumerate(PHASES)
        ],
        "density: probability that a feature is on",
        "importance of feature 2 relative to feature 1",
        log_x=True,
        log_y=True,
    )
