"""Gates that random neurons compute, and none: B3, B9 and B4."""

from typing import Any

import numpy as np

from zoo.report import Chart, Section, Series
from zoo.studies.embedding.numbers import mean_and_interval, spelled
from zoo.studies.toys.gate_errors import AFFINE, GATES, NAMES, comparisons, errors, overall, places, widths
from zoo.studies.toys.measured import COLORS, listed, series, sign
from zoo.studies.toys.trained import scope
from zoo.studies.universal_gates_report import METHODS, Results, chosen, table

WORDS = {"better": "better", "worse": "worse", "undecided": "neither clearly"}


def genericity(results: Results, command: str) -> Section:
    """B3 and B9: trained networks against random first layers.

    Args:
        results: Of the study `universal_gates`.
        command: What makes it again.
    """
    compared = comparisons(results)
    beat = all(one["best"]["high"] < AFFINE[one["gate"]] for one in compared)
    told = [
        f"{gate.upper()} "
        + ", ".join(
            f"{spelled(one['trained'])} against {spelled(one['best'])} at d = {one['d']:,}"
            for one in compared
            if one["gate"] == gate
        )
        for gate in GATES
    ]
    by_answer = [f"{text} for {places(compared, answer)}" for answer, text in WORDS.items() if places(compared, answer)]
    helped = sum(sign(one["against_readoff"]) == "below" for one in compared)
    finding = (
        f"Random layers {'compute' if beat else 'do not everywhere compute'} the gates better than no neurons do. Mean "
        f"|error| of networks with both layers trained against the best readoff of their random first layers: "
        f"{'; '.join(told)}. Judged by mean and by root mean square, training is {listed(by_answer)}. Against a "
        "readoff of the same random layer that is trained in the same way, training the first layer too makes the "
        f"mean error smaller in {helped} of {len(compared)} comparisons."
    )
    charts = [_widths(results, gate) for gate in GATES]
    charts.append(
        Chart(
            "b9-difference",
            "Trained networks minus the best readoff of random neurons",
            [_differences(gate, compared, color) for gate, color in zip(GATES, COLORS, strict=False)],
            "neurons d",
            "difference of mean |error|",
            caption="Below 0 training wins. Whiskers: 95 % over seeds, which share their first layers.",
        )
    )
    shown = chosen(results, weights="four", p=2)
    return Section(
        "B3, B9",
        "Is that better than what random neurons do?",
        finding,
        tables=f"{_table(compared)}\n\n{table(shown)}",
        charts=charts,
        null_models=(
            "The first layer is drawn as at the start of training and kept. Its best linear readoff is computed: least "
            "squares, which is the optimum for p = 2, or the same stretched to be right on average (discriminant), "
            "whichever errs less. The trained readoff of that layer shows what the optimizer loses."
        ),
        not_shown=(
            f"{scope(results)} What networks can do at best: where training is worse than a readoff that it could have "
            "found, it has not converged, and other training may win."
        ),
        command=command,
        numbers={"comparisons": compared, "runs": shown},
    )


def _widths(results: Results, gate: str) -> Chart:
    d = widths(results)
    lines = [
        series(
            NAMES[method],
            [f"{n:,}" for n in d],
            [overall(results, gate=gate, d_mlp=n, method=method) for n in d],
            "line" if method in ("trained", "frozen") else "dashed",
        )
        for method in METHODS
    ]
    caption = "Bands: 95 % over seeds. Solid: trained; dashed: computed."
    label = "mean |error| of the four cases"
    return Chart(f"b3-{gate}", f"{gate.upper()} against width", lines, "neurons d", label, log_y=True, caption=caption)


def _differences(gate: str, compared: list[dict[str, Any]], color: str) -> Series:
    own = [one for one in compared if one["gate"] == gate]
    mean, low, high = ([one["against_best"][key] for one in own] for key in ("mean", "low", "high"))
    return Series(gate.upper(), [f"{one['d']:,}" for one in own], mean, "points", low, high, color=color)


def _table(compared: list[dict[str, Any]]) -> str:
    columns = ["gate", "d", "both layers trained", "best readoff of random neurons", "difference", "of rms"]
    columns += ["difference from a trained readoff", "training is"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in compared:
        keys = ("trained", "best", "against_best", "against_best_rms", "against_readoff")
        cells = [one["gate"], f"{one['d']:,}", *(spelled(one[key]) for key in keys), one["answer"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def affine(results: Results, command: str) -> Section:
    """B4: what needs no neurons.

    Args:
        results: Of the study.
        command: What makes it again.
    """
    d, names = widths(results)[0], [gate.upper() for gate in GATES]
    found = {gate: errors(results, gate=gate, d_mlp=d, method="affine") for gate in GATES}
    off = max(float(np.abs(found[gate] - AFFINE[gate]).max()) for gate in GATES)
    compared = []
    for gate in GATES:
        explicit = overall(results, gate=gate, d_mlp=d, method="explicit")
        side = sign(mean_and_interval((explicit - AFFINE[gate]).tolist()))
        word = {"above": "more", "below": "less", "undecided": "not clearly more or less"}[side]
        compared.append(f"{word} for {gate.upper()} ({spelled(mean_and_interval(explicit.tolist()))})")
    finding = (
        f"AND by (x_i + x_j) / 2 - 1/4, which errs by 1/4 in each case, and of XOR only the constant 1/2: "
        f"{'so measured' if off < 1e-6 else f'measured errors differ from that by up to {off:.2g}'}. The readoff of "
        f"{d:,} random neurons that is written down errs {' and '.join(compared)}."
    )
    bars = [
        series(NAMES[m], names, [overall(results, gate=gate, d_mlp=d, method=m) for gate in GATES], "bars")
        for m in METHODS
    ]
    return Section(
        "B4",
        "What can be read off the inputs without any neurons?",
        finding,
        tables=table([r for r in chosen(results, d_mlp=d) if r["method"] in ("affine", "explicit")]),
        charts=[Chart("b4-affine", f"Without neurons, and with d = {d:,}", bars, "", "mean |error| of the four cases")],
        null_models="It is itself what every other readoff is compared with.",
        not_shown="Affine readoffs whose cases do not weigh alike: where nearly all is 00, the constant 0 errs less "
        "(B5).",
        command=command,
        numbers={"off_closed_form": off, "runs": chosen(results, d_mlp=d, method="affine")},
    )
