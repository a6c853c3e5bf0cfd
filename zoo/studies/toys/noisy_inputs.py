"""Gates whose inputs are not clean, for they are superposed (B8) or the outputs of other gates (B10)."""

from itertools import cycle

import numpy as np

from zoo.report import Chart, Section, Series
from zoo.report.chart import Style
from zoo.studies.embedding.numbers import Interval, mean_and_interval, spelled
from zoo.studies.explicit_gates_report import Results, of_kind, tables, values
from zoo.studies.toys.explicit import HOW, ratios_of
from zoo.studies.toys.measured import COLORS, agreement, agrees, listed, series, theory, told

STEADY = 1.1  # growth per depth up to which errors count as kept small
SOLID: Style = "line"
DASHED: Style = "dashed"


def floor_ratios(results: Results) -> np.ndarray:
    """Measured over theory of superposed inputs (B8), (settings, seeds)."""
    return ratios_of(of_kind(results, "superposed"))


def growth(results: Results, d: int, corrected: bool) -> Interval:
    """By what factor the error grows per depth, from the second on, which is the first that reads other gates (B10)."""
    rms = np.array([r["rms"] for r in of_kind(results, "depth", d, corrected)])
    return mean_and_interval(((rms[:, -1] / rms[:, 1]) ** (1 / (rms.shape[1] - 2))).tolist())


def steady(results: Results) -> list[int]:
    """Widths at which error correction stops the growth of errors."""
    return [d for d in values(of_kind(results, "depth"), 0) if growth(results, d, True)["high"] <= STEADY]


def superposed(results: Results, command: str) -> Section:
    """B8: inputs that are superposed themselves.

    Args:
        results: Of the study `explicit_gates`.
        command: What makes it again.
    """
    runs, found = of_kind(results, "superposed"), agreement(floor_ratios(results))
    d0s, widths = values(runs, 0), values(runs, 1)
    floors = {d0: np.mean([r["floor"] for r in of_kind(results, "superposed", d0)]) for d0 in d0s}
    shares = {
        d0: mean_and_interval(
            [(r["floor"] / r["rms"]["00"]) ** 2 for r in of_kind(results, "superposed", d0, widths[-1])]
        )
        for d0 in (d0s[0], d0s[-1])
    }
    finding = (
        f"A floor that no number of neurons removes: rms {floors[d0s[0]]:.3f} in {d0s[0]:,} dimensions, "
        f"{floors[d0s[-1]]:.3f} in {d0s[-1]:,}. At d = {widths[-1]:,} it makes up {spelled(shares[d0s[0]], 2)} and "
        f"{spelled(shares[d0s[-1]], 2)} of the squared error. Simulation and theory {HOW[agrees(found)]}: "
        f"{told(found)}."
    )
    lines: list[Series] = []
    for d, color in zip(widths, cycle(COLORS[:3])):
        each = [of_kind(results, "superposed", d0, d) for d0 in d0s]
        lines.append(theory(f"d = {d:,}", d0s, [float(np.mean([r["theory"] for r in rows])) for rows in each], color))
        lines.append(series(f"d = {d:,}", d0s, [[r["rms"]["00"] for r in rows] for rows in each], color=color))
    lines.append(Series("floor: d without end", d0s, list(floors.values()), "dotted", color=COLORS[3]))
    return Section(
        "B8",
        "What if the inputs are in superposition themselves?",
        finding,
        tables=tables(results)["superposed"],
        charts=[
            Chart(
                "b8-superposed",
                "AND of superposed inputs, 2 on",
                lines,
                "dimensions d0 of the inputs",
                "rms error of 00",
                log_x=True,
                log_y=True,
                caption="Dashed: theory; dotted: its floor. Whiskers: 95 % over draws.",
            )
        ],
        null_models="The theory for the very directions that were drawn, with nothing to fit; dimensions above the "
        "number of inputs, where they still overlap.",
        not_shown="Directions other than random ones, which could overlap less; more than two inputs on; other "
        "readoffs.",
        command=command,
        numbers={"agreement": found, "runs": runs},
    )


def depth(results: Results, command: str) -> Section:
    """B10: gates of gates.

    Args:
        results: Of the study.
        command: What makes it again.
    """
    runs = of_kind(results, "depth")
    widths, deep = values(runs, 0), len(runs[0]["rms"])
    d, kept = widths[-1], steady(results)
    last = {c: [r["rms"][-1] for r in of_kind(results, "depth", d, c)] for c in (False, True)}
    stops = f"stops the growth at d = {listed([f'{n:,}' for n in kept])}" if kept else "stops the growth at no width"
    finding = (
        f"At d = {d:,} errors grow by a factor of {spelled(growth(results, d, False), 2)} per depth from the second "
        f"on, and of {spelled(growth(results, d, True), 2)} with error correction: rms "
        f"{spelled(mean_and_interval(last[False]))} against {spelled(mean_and_interval(last[True]))} at depth {deep}. "
        f"Error correction {stops} (a factor of at most {STEADY})."
    )
    lines, x = [], [str(t + 1) for t in range(deep)]
    for n, color in zip(widths, cycle(COLORS)):
        for corrected, style, end in ((False, DASHED, ""), (True, SOLID, ", corrected")):
            samples = np.array([r["rms"] for r in of_kind(results, "depth", n, corrected)]).T
            lines.append(series(f"d = {n:,}{end}", x, list(samples), style, color=color))
    return Section(
        "B10",
        "How do errors grow when gates feed gates?",
        finding,
        tables=tables(results)["depth"],
        charts=[
            Chart(
                "b10-depth",
                "ANDs, then ORs of ORs",
                lines,
                "depth",
                "rms error",
                log_y=True,
                caption="Solid: with two neurons per value between depths that remove errors below 1/4. Bands: 95 %.",
            )
        ],
        null_models="The same networks and inputs without error correction.",
        not_shown="Trained networks in depth; gates other than ANDs and then ORs of two; more than "
        f"{deep} depths; other thresholds of the correction.",
        command=command,
        numbers={
            "growth": {n: {str(c): growth(results, n, c) for c in (False, True)} for n in widths},
            "steady": kept,
            "runs": runs,
        },
    )
