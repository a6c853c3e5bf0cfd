"""The numbers, the table, the picture and the page of `row_reset`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo.report import Chart, Report, Section, Series, Verdict, write

MODES = {"row": "only that row is trained", "rest": "everything but that row is trained"}
ARMS = {"reset": "after a reset", "control": "without a reset"}
Numbers = dict[str, Any]


def _text(value: Numbers | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    mean, low, high = (f"{value[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _percent(value: Numbers | None) -> str:
    if value is None:
        return "-"
    return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * value[key] for key in ("mean", "low", "high")))


def table(results: Numbers) -> str:
    """The results in Markdown."""
    s, groups = results["settings"], results["groups"]
    lines = []
    for mode, title in MODES.items():
        head = [
            title,
            "rows",
            "on validation text",
            "before",
            "damage",
            f"left after {s['steps']} steps",
            "recovered",
            "without control",
        ]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for g in groups:
            m = g[mode]
            cells = [g["name"], str(g["n"]), str(g["on_validation"]), f"{m['before']['mean']:.3f}"]
            cells += [
                _text(m["damage"]),
                _text(m["left"]),
                _percent(m["recovered"]),
                _percent(m["recovered_without_control"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    head = [MODES["row"], "cosine to its original at reset", "after", "to others' originals, after", "rise over others"]
    head.append("nearest is its own")
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for g in groups:
        m = g["row"]
        cells = [g["name"], *(_text(m[key], 2) for key in ("own_at_reset", "own", "others", "drift"))]
        lines.append(f"| {' | '.join([*cells, _percent(m['nearest'])])} |")
    lines += [
        "",
        "Strata are by how often the token occurs in the training text. Losses are nats per token at and after the "
        f"token's first place in a context of {s['length']}; damage is the loss right after the reset minus that "
        "before; left is the loss after fine-tuning minus that of the control, the same fine-tuning without a reset; "
        "recovered is 1 - left / damage, of means ('without control': 1 - (after - before) / damage; '-': no clear "
        f"damage). Brackets are 95 % intervals over tokens, {s['seeds']} random rows of each averaged: Student t, and "
        "bootstrap for what is recovered. Cosines are about the mean row; others are tokens of the same stratum. "
        "Tokens that are too rare in the validation text are judged on training text that fine-tuning leaves out. "
        f"{s['batch']} contexts a step of {s['training_contexts']}, {s['evaluation_contexts']} to judge by.",
        *(f"\nNote: {note}." for note in results["notes"]),
    ]
    return "\n".join(lines) + "\n"


def finding(results: Numbers) -> str:
    """The answer in words."""
    everything, steps = results["groups"][0], results["settings"]["steps"]
    row, rest = everything["row"], everything["rest"]
    if row["recovered"] is None:
        return f"A random row does no clear damage: {_text(row['damage'])} nats over {everything['n']} tokens."
    drift, own, others = row["drift"], _text(row["own"], 2), _text(row["others"], 2)
    way = "turns towards" if drift["low"] > 0 else "turns away from" if drift["high"] < 0 else "does not turn towards"
    return (
        f"A random row costs {_text(row['damage'])} nats per token where it matters, over {everything['n']} tokens. "
        f"Of that, {steps} steps on the row alone make good {_percent(row['recovered'])}, and {steps} steps on "
        f"everything but the row {_percent(rest['recovered'])}, judged by the same steps without a reset. The trained "
        f"row {way} its original: cosine {own} against {others} to originals of equally frequent tokens; its own is "
        f"the nearest of all for {_percent(row['nearest'])} of the tokens (by chance "
        f"{100 / results['model']['vocab_size']:.2g} %)."
    )


def _headline(results: Numbers) -> str:
    row, rest = (_percent(results["groups"][0][mode]["recovered"]) for mode in MODES)
    if row == "-":
        return "A random row does no clear damage, so there is nothing to recover."
    return f"Training the row alone makes good {row} of a random row's damage, training all but the row {rest}."


def _series(name: str, x: Any, values: list[Numbers | None], **options: Any) -> Series:
    y, low, high = ([math.nan if v is None else v[key] for v in values] for key in ("mean", "low", "high"))
    return Series(name, x, y, low=low, high=high, **options)


def charts(results: Numbers) -> list[Chart]:
    """Loss over steps by mode, what is recovered by stratum, and cosines over steps."""
    steps, curves, groups = results["steps_measured"], results["curves"], results["groups"]
    found = [
        Chart(
            f"a6-loss-{mode}",
            f"Loss when {title}",
            [
                _series(text, steps, curves[mode][arm], style="line" if arm == "reset" else "dashed")
                for arm, text in ARMS.items()
            ],
            "steps of fine-tuning",
            "loss above the untouched model's, nats",
            caption="At step 0 the reset has just been made; 0 is the loss before. Bands: 95 % over tokens.",
        )
        for mode, title in MODES.items()
    ]
    shares = [_series(t, [g["name"] for g in groups], [g[m]["recovered"] for g in groups]) for m, t in MODES.items()]
    found.append(
        Chart(
            "a6-recovered",
            "How much of the damage is made good",
            [Series(s.name, s.x, s.y, "points", s.low, s.high) for s in shares],
            "occurrences of the token in the training text",
            "1 - (loss after - control) / damage",
            caption="Whiskers: 95 % bootstrap over tokens. 1 is all of the damage, 0 is none.",
        )
    )
    own, others = (curves["row"][name] for name in ("own", "others"))
    series = [
        _series("its own original", steps, own),
        _series("originals of equally frequent tokens", steps, others, style="dashed"),
    ]
    found.append(
        Chart(
            "a6-cosine",
            "Does the row come back?",
            series,
            "steps of training the row alone",
            "cosine about the mean row",
            caption="The dashed line is the null: what the row has in common with tokens of its stratum.",
        )
    )
    return found


def draw(results: Numbers) -> Figure:
    """The four charts side by side."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    names = [g["name"] for g in results["groups"]]
    for axes, chart in zip(figure.subplots(2, 2).flat, charts(results), strict=True):
        for i, one in enumerate(chart.series):
            y, low, high = (np.array(v, float) for v in (one.y, one.low, one.high))
            if one.style == "points":
                x = np.arange(len(names)) + 0.15 * (2 * i - 1)
                axes.errorbar(x, y, (y - low, high - y), fmt="o", capsize=3, label=one.name)
                axes.set_xticks(range(len(names)), names)
            else:
                axes.plot(one.x, y, marker=".", ls="--" if one.style == "dashed" else "-", label=one.name)
                axes.fill_between(np.array(one.x, float), low, high, alpha=0.2, lw=0)
        axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
        axes.axhline(0, color="black", lw=0.5)
        axes.grid(alpha=0.2)
        axes.legend(fontsize="small")
    return figure


def section(results: Numbers, settings: Numbers, command: str) -> Section:
    """The experiment as a part of a report.

    Args:
        results: What is in `results.json`.
        settings: Of the study, written beside the results.
        command: What makes it again.
    """
    s = results["settings"]
    return Section(
        "A6",
        "What is one row worth, and does fine-tuning bring it back?",
        finding(results),
        tables=table(results),
        charts=charts(results),
        null_models=(
            "The control is the same fine-tuning on the same contexts without a reset. A reset row points in an "
            "isotropic random direction from the mean row, at its original's distance. The trained row's cosine to its "
            "original stands beside that to originals of other tokens of its stratum."
        ),
        not_shown=(
            f"That longer or other fine-tuning ends where this does: {s['steps']} steps of Adam (rate falling to 0 "
            f"from {s['row_rate']:g} typical entries for a row, {s['rest_rate']:g} for the rest) on contexts that all "
            "hold the token, which is more often than in text. That a row is determined by its contexts: a row that "
            "does not come back may do as well. That frequency itself makes strata differ: rarer tokens are more often "
            "judged on training text, which the model has seen. What several resets at once would do. Nothing of "
            "tokens with too few contexts, and of other models."
        ),
        command=command,
        numbers={"settings": settings, **{k: results[k] for k in ("groups", "curves", "steps_measured", "notes")}},
    )


def report(results: Numbers, settings: Numbers, command: str, out: Path) -> None:
    """Write the study as a page of its own."""
    made, model = section(results, settings, command), results["model"]
    subject = "{} (GPT-2, V {vocab_size:,}, width {d_model}, {n_layers} layers, {unembedding})".format(
        settings["source"], unembedding="tied" if model["tied"] else "untied", **model
    )
    certainty = (
        f"{settings['rows']} tokens, {settings['seeds']} random rows each, 95 % intervals over tokens; one model."
    )
    verdict = Verdict(_headline(results), certainty, numbers=results["groups"][0])
    title = "Can one row of an embedding be lost?"
    write(Report("row-reset", title, subject, verdict, [made], command, settings), out)
