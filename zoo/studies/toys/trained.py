"""Gates by trained networks: B1, B2 and B5."""

from pathlib import Path

import numpy as np

from zoo.report import Chart, Section
from zoo.studies.embedding.numbers import mean_and_interval, spelled
from zoo.studies.toys.gate_errors import AFFINE, GATES, INPUTS, NAMES, errors, overall, widths
from zoo.studies.toys.measured import COLORS, listed, series, sign
from zoo.studies.universal_gates_report import METHODS, Results, chosen, table

WEIGHTS = {"natural": "as they occur", "ones": "ones as much as zeros", "four": "four cases alike"}
RIGHT = 0.5  # error below which an output rounds to what it should be


def scope(results: Results) -> str:
    """What no section on trained gates shows."""
    steps, seeds = results[0]["steps"], results[0]["seeds"]
    return (
        f"Inputs of which more than two are on, or a varying number; other widths; other training than {steps:,} "
        f"steps of Adam at one learning rate. {seeds} seeds are few."
    )


def cases(results: Results, folder: Path, command: str) -> Section:
    """B1 and B2: errors by case.

    Args:
        results: Of the study `universal_gates`.
        folder: Of the study.
        command: What makes it again.
    """
    d, m = widths(results)[0], results[0]["n_features"]
    told, learned, right = [], [], []
    for gate in GATES:
        mean, most = (errors(results, name, gate=gate, d_mlp=d, method="trained") for name in ("mean", "max"))
        none, one, both, all_four, worst = (
            mean_and_interval(values.tolist())
            for values in (mean[:, 0], mean[:, 1:3].mean(1), mean[:, 3], mean.mean(1), most.max(1))
        )
        told.append(
            f"U-{gate.upper()} errs by {spelled(none)} at 00, {spelled(one)} at 01 and 10, {spelled(both)} at 11 (mean "
            f"|error|; over the four {spelled(all_four)}), and by {spelled(worst, 2)} at most."
        )
        learned += [gate.upper()] if all_four["high"] < AFFINE[gate] else []
        right += [gate.upper()] if worst["high"] < RIGHT else []
    blind = errors(results, gate="xor", d_mlp=d, method="trained", weights="zero_one")
    seen, unseen = (mean_and_interval(values.tolist()) for values in (blind[:, :3].max(1), blind[:, 3]))
    trap = "is wrong where both are on" if unseen["low"] > RIGHT else "is not clearly wrong where both are on"
    finding = (
        f"{listed(learned) or 'Neither'} on average, with less error than any affine readoff of the inputs: "
        f"d = {d:,} neurons, {m * (m - 1) // 2:,} pairs of {m} inputs. {' '.join(told)} Rounded to 0 or 1, "
        f"{listed(right) or 'neither'} is right for every pair and input. XOR that is judged by zeros and "
        f"ones alone {trap}: mean |error| {spelled(unseen)} at 11, and at most {spelled(seen)} in any other case."
    )
    charts = [
        Chart(
            f"b1-{gate}",
            f"U-{gate.upper()}, d = {d:,}: errors by case",
            [
                series(NAMES[method], INPUTS, list(errors(results, gate=gate, d_mlp=d, method=method).T), "bars")
                for method in METHODS
            ],
            "",
            "mean |error|",
            caption="The four cases weigh alike in training, p = 2. Whiskers: 95 % over seeds.",
        )
        for gate in GATES
    ]
    judged = {"four cases alike": "four", "zeros and ones alike": "zero_one"}
    colors = dict(zip([*WEIGHTS, "zero_one"], COLORS, strict=False))
    charts.append(
        Chart(
            "b2-judged",
            "U-XOR: what judging by zeros and ones hides",
            [
                series(
                    name,
                    INPUTS,
                    list(errors(results, gate="xor", d_mlp=d, method="trained", weights=w).T),
                    "bars",
                    color=colors[w],
                )
                for name, w in judged.items()
            ],
            "",
            "mean |error|",
            caption="Both layers trained, p = 2. Nearly all zeros of a sparse XOR are 00; few are 11.",
        )
    )
    shown = [r for r in chosen(results, d_mlp=d, p=2) if r["weights"] in judged.values()]
    return Section(
        "B1, B2",
        "Do narrow networks learn U-AND and U-XOR?",
        finding,
        tables=table(shown),
        charts=charts,
        pictures=[folder / "universal_gates.png"],
        null_models=(
            "The affine readoff of the inputs, which needs no neurons; random first layers with the readoff that is "
            "written down (explicit), with the best linear readoff (least squares) and with a trained one (frozen). "
            "Every network is judged on all vectors with two inputs on."
        ),
        not_shown=f"{scope(results)} Histograms of errors and the share within a given error, which are not kept.",
        command=command,
        numbers={"runs": shown},
    )


def losses(results: Results, command: str) -> Section:
    """B5: exponents and weights.

    Args:
        results: Of the study.
        command: What makes it again.
    """
    d, runs = widths(results)[0], chosen(results, d_mlp=widths(results)[0], method="trained", gate="and")
    powers = sorted({r["p"] for r in runs})
    low, high = powers[0], powers[-1]

    def of(weights: str, p: int, name: str = "mean") -> np.ndarray:
        return errors(results, name, gate="and", d_mlp=d, method="trained", weights=weights, p=p)

    zero = mean_and_interval(of("natural", low)[:, 3].tolist())
    wins = "the zero map wins" if zero["low"] > 0.9 else "the zero map does not quite win"
    ones, alike = (mean_and_interval(of(w, low)[:, 1:3].mean(1).tolist()) for w in ("ones", "four"))
    both = mean_and_interval(of("ones", low)[:, 3].tolist())
    mended = (
        "mends 11 and spoils 01 and 10" if both["high"] < 0.25 < ones["low"] else "does not spoil 01 and 10 clearly"
    )
    change = mean_and_interval((of("four", low).mean(1) - of("four", high).mean(1)).tolist())
    most = mean_and_interval((of("four", low, "max").max(1) - of("four", high, "max").max(1)).tolist())
    verbs = {"below": "errs less", "above": "errs more", "undecided": "errs about as much"}
    largest = {"below": "smaller", "above": "larger", "undecided": "not clearly different"}
    errors_by_p = ", ".join(f"{of('four', p).mean():.3f} (p = {p})" for p in powers)
    finding = (
        f"As cases occur, {wins}: with p = {low} the error at 11 is {spelled(zero)}. Ones that weigh as much as all "
        f"zeros: this {mended} ({spelled(both)} at 11; {spelled(ones)} at 01 and 10, against {spelled(alike)} with "
        f"the four cases alike). With the four cases alike p = {low} {verbs[sign(change)]} than p = {high} in the "
        f"mean: {errors_by_p}, difference {spelled(change)}; its largest error is {largest[sign(most)]} (difference "
        f"{spelled(most, 2)})."
    )

    def chart(name: str, title: str, label: str, column: slice, measure: str = "mean") -> Chart:
        lines = []
        for (weights, text), color in zip(WEIGHTS.items(), COLORS, strict=False):
            found = [of(weights, p, measure)[:, column] for p in powers]
            lines.append(
                series(text, powers, [v.max(1) if measure == "max" else v.mean(1) for v in found], "line", color=color)
            )
        return Chart(name, title, lines, "exponent p of the loss", label, caption="Both layers trained. Bands: 95 %.")

    unweighted = {r["p"]: overall(results, gate="xor", d_mlp=d, method="trained", p=r["p"]) for r in runs}
    charts = [
        chart("b5-all", "AND: all four cases", "mean |error| of the four cases", slice(0, 4)),
        chart("b5-ones", "AND: where both inputs are on", "mean |error| at 11", slice(3, 4)),
        chart("b5-one-on", "AND: where one input is on", "mean |error| at 01 and 10", slice(1, 3)),
        chart("b5-largest", "AND: the largest error", "largest |error|", slice(0, 4), "max"),
    ]
    shown = [r for r in chosen(results, d_mlp=d) if r["method"] in ("trained", "frozen")]
    return Section(
        "B5",
        "Which loss, and which weights, teach a gate?",
        finding,
        tables=table(shown),
        charts=charts,
        null_models=(
            "The constant 0 errs by 1 at 11 and by 0 elsewhere; the affine readoff by 1/4 everywhere. Weights: as "
            "cases occur (natural), the same but ones as much as all zeros (ones), zeros and ones alike (zero_one), "
            "four alike. Of XOR (four cases alike), by p: "
            + ", ".join(f"{v.mean():.3f} ({p})" for p, v in unweighted.items())
            + "."
        ),
        not_shown=f"{scope(results)} Other learning rates for p above 2, which may not have settled at this one.",
        command=command,
        numbers={"runs": shown},
    )
