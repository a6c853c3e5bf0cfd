"""Gates by random neurons and a readoff that is written down: B6 and B7."""

from itertools import cycle
from pathlib import Path

import numpy as np

from zoo.models.toy.gaussian_signs import kappa
from zoo.report import Chart, Section, Series
from zoo.studies.embedding.numbers import Interval, mean_and_interval, spelled
from zoo.studies.explicit_gates_report import Results, exponents, of_kind, tables, values
from zoo.studies.toys.gate_errors import AFFINE, GATES, NAMES
from zoo.studies.toys.measured import COLORS, agreement, agrees, listed, series, theory, told

HOW = {"yes": "agree", "no": "do not agree", "undecided": "agree or not, which more draws have to tell"}


def ratios(results: Results) -> np.ndarray:
    """Measured over theory at all widths and numbers of inputs that have a theory (B6), (settings, seeds)."""
    return ratios_of([r for r in of_kind(results, "width") if np.isfinite(r["theory"])])


def ratios_of(runs: Results) -> np.ndarray:
    """Measured over theory of the rms error of 00, by setting, (settings, seeds)."""
    settings = dict.fromkeys(tuple(r["setting"]) for r in runs)
    return np.array(
        [[r["rms"]["00"] / r["theory"] for r in runs if tuple(r["setting"]) == setting] for setting in settings]
    )


def _on(name: str) -> str:
    return f"{name} on" if name.isdigit() else f"{name.split()[-1]} on in the mean (Bernoulli)"


def closed_form(results: Results, folder: Path, command: str) -> Section:
    """B6: the readoff as it was built.

    Args:
        results: Of the study `explicit_gates`.
        folder: Of the study.
        command: What makes it again.
    """
    found, runs = agreement(ratios(results)), of_kind(results, "width")
    fixed = [on for on in values(runs, 1) if on.isdigit()]
    seeds = len({r["seed"] for r in runs})
    finding = f"Simulated errors and their closed form {HOW[agrees(found)]}: {told(found)}."
    charts = []
    for gate in GATES:
        lines: list[Series] = []
        beside: list[Series] = []
        for on, color in zip(fixed, cycle(COLORS)):
            d = values(of_kind(results, "width", gate, on), 2)
            each = [of_kind(results, "width", gate, on, n) for n in d]
            lines.append(theory(_on(on), d, [rows[0]["theory"] for rows in each], color))
            lines.append(series(_on(on), d, [[r["rms"]["00"] for r in rows] for rows in each], color=color))
            samples = [[r["rms"]["00"] / r["theory"] for r in rows] for rows in each]
            beside.append(series(_on(on), [f"{n:,}" for n in d], samples, color=color))
        lines.append(Series(NAMES["affine"], d, [AFFINE[gate]] * len(d), "dotted"))
        title = f"{gate.upper()}: error of 00 against width"
        caption = "Dashed: kappa sqrt(l / 2) / sqrt(d)." if gate == "and" else "Dashed: the closed form."
        caption += " Whiskers, often smaller than the points: 95 % over draws of the weights."
        charts.append(
            Chart(f"b6-{gate}", title, lines, "neurons d", "rms error of 00", log_x=True, log_y=True, caption=caption)
        )
        title = f"{gate.upper()}: measured over theory"
        charts.append(Chart(f"b6-{gate}-ratio", title, beside, "neurons d", "ratio", caption="Whiskers: 95 %."))
    known = ", ".join(f"kappa({on}) = {float(kappa(int(on))):.3f}" for on in fixed)
    return Section(
        "B6",
        "Do random neurons with an explicit readoff err as the closed form says?",
        finding,
        tables=f"{known}; for many inputs kappa(l) tends to {np.pi * np.sqrt(np.pi / 2):.3f} sqrt(l).\n\n"
        f"{tables(results)['width']}",
        charts=charts,
        pictures=[folder / "explicit_gates.png"],
        null_models="The closed form, which has nothing to fit; and the affine readoff, which needs no neurons.",
        not_shown=(
            "Biases, other distributions of the weights, gates of three inputs. The theory of Bernoulli inputs' "
            f"errors is not worked out. {seeds} draws of the weights are few, and with so many intervals some miss 1 "
            "by chance."
        ),
        command=command,
        numbers={"agreement": found, "runs": runs},
    )


def width(results: Results, command: str) -> Section:
    """B7: error against width, and other numbers of inputs than the readoff was built for.

    Args:
        results: Of the study.
        command: What makes it again.
    """
    runs, used = of_kind(results, "width"), of_kind(results, "used_at")
    slopes = {
        f"{gate.upper()}, {_on(on)}": exponents(results, gate, on)
        for gate, on in dict.fromkeys(tuple(r["setting"][:2]) for r in runs)
    }

    def holds(name: str) -> str:
        half = sum(slope[name]["low"] <= -0.5 <= slope[name]["high"] for slope in slopes.values())
        means = [slope[name]["mean"] for slope in slopes.values()]
        return f"{min(means):.3f} to {max(means):.3f}, with -1/2 in {half} of {len(slopes)} intervals"

    near = max(abs(slope[name]["mean"] + 0.5) for slope in slopes.values() for name in ("mean", "max"))
    on = values(used, 0)
    ones = {n: [1 + r["bias"]["11"] for r in of_kind(results, "used_at", n)] for n in on}
    zeros = {n: [r["bias"]["00"] for r in of_kind(results, "used_at", n)] for n in on}
    expected = {n: of_kind(results, "used_at", n)[0]["theory"] for n in on}
    biased = [n for n in on if not _holds_zero(mean_and_interval(zeros[n]))]
    finding = (
        f"Errors {'fall like 1 / sqrt(d)' if near < 0.05 else 'do not all fall like 1 / sqrt(d)'}: exponents of the "
        f"mean error are {holds('mean')}, of the largest {holds('max')}. A readoff built for 4 inputs and used at "
        f"{on[-1]} gives {spelled(mean_and_interval(ones[on[-1]]))} where it should give 1 (theory "
        f"{expected[on[-1]]:.3f}); zeros "
        + (f"are biased at {listed([str(n) for n in biased])} inputs." if biased else "stay unbiased.")
    )
    lines = []
    for name, color in zip(values(of_kind(results, "width", "and"), 1), cycle(COLORS)):
        d = values(of_kind(results, "width", "and", name), 2)
        each = [of_kind(results, "width", "and", name, n) for n in d]
        lines.append(series(_on(name), d, [[r["mean"]["00"] for r in rows] for rows in each], "line", color=color))
        most = [[r["max"]["00"] for r in rows] for rows in each]
        lines.append(series(_on(name), d, most, "dotted", labels=["largest"] * len(d), color=color))
    charts = [
        Chart(
            "b7-width",
            "AND: mean and largest error of 00",
            lines,
            "neurons d",
            "|error| of 00",
            log_x=True,
            log_y=True,
            caption="Solid: mean; dotted: largest. Bands: 95 % over draws of the weights.",
        ),
        Chart(
            "b7-used-at",
            "A readoff for 4 inputs, used at other numbers",
            [
                theory("mean output of 11", on, [expected[n] for n in on], COLORS[0]),
                series("mean output of 11", on, list(ones.values()), color=COLORS[0]),
                theory("mean output of 00", on, [0.0 for _ in on], COLORS[1]),
                series("mean output of 00", on, list(zeros.values()), color=COLORS[1]),
            ],
            "inputs on",
            "mean output",
            caption="Dashed: kappa(4) / kappa(l), and 0. Whiskers: 95 %.",
        ),
    ]
    return Section(
        "B7",
        "How do errors grow with fewer neurons, and with other numbers of inputs?",
        finding,
        tables=f"{tables(results)['exponents']}\n\n{tables(results)['used_at']}",
        charts=charts,
        null_models="The exponent -1/2 and kappa(4) / kappa(l) of the theory, neither of which is fitted.",
        not_shown=(
            "Widths outside those simulated. The largest error is that of so many vectors and pairs, and grows with "
            "their number. Intervals are over draws of the weights, of which there are few."
        ),
        command=command,
        numbers={"exponents": slopes, "used_at": used},
    )


def _holds_zero(span: Interval) -> bool:
    return span["low"] <= 0 <= span["high"]
