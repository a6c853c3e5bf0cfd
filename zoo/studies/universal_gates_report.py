"""Table and picture of the study `universal_gates`."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.metrics import CASES
from zoo.studies.intervals import interval

Results = list[dict[str, Any]]
METHODS = {  # colour, and name in the picture
    "affine": ("C7", "affine in the inputs"),
    "explicit": ("C4", "random layer, explicit readoff"),
    "least squares": ("C0", "random layer, best linear readoff"),
    "frozen": ("C2", "random layer, trained readoff"),
    "trained": ("C3", "both layers trained"),
}


def chosen(results: Results, **settings: Any) -> Results:
    """Runs with these settings."""
    return [r for r in results if all(r[key] == value for key, value in settings.items())]


def table(results: Results) -> str:
    """Errors of every run, in Markdown."""
    lines = [
        "| gate | d | method | weights | p | mean error 00 | 01 and 10 | 11 | all four | largest error 00 | 11 |",
        "|---" * 11 + "|",
    ]
    for r in results:
        mean, most = np.array(r["mean"]), np.array(r["max"])  # (seeds, 4)
        columns = [mean[:, 0], mean[:, 1:3].mean(1), mean[:, 3], mean.mean(1), most[:, 0], most[:, 3]]
        closed = r["method"] in ("affine", "explicit")
        cells = [r["gate"], f"{r['d_mlp']:,}", r["method"], *(("-", "-") if closed else (r["weights"], str(r["p"])))]
        lines.append(f"| {' | '.join(cells + [_span(column) for column in columns])} |")
    return "\n".join(lines) + "\n"


def draw(results: Results) -> Figure:
    """Errors by case, against width, and against the exponent of the loss."""
    figure = Figure(figsize=(13, 8), dpi=110, layout="constrained")
    panels = figure.subplots(2, 3)
    widths = sorted({r["d_mlp"] for r in results})
    for row, gate in zip(panels, ("and", "xor"), strict=True):
        _draw_cases(row[0], chosen(results, gate=gate, d_mlp=widths[0], weights="four", p=2))
        row[0].set(title=f"{gate.upper()}, d = {widths[0]}, p = 2, four cases alike", ylabel="mean |error|")
        _draw_widths(row[1], chosen(results, gate=gate, weights="four", p=2), widths)
        row[1].set(title=f"{gate.upper()} against width", xlabel="neurons d", ylabel="mean |error| of the four cases")
        _draw_exponents(row[2], chosen(results, gate=gate, d_mlp=widths[0]))
        row[2].set(title=f"{gate.upper()}, d = {widths[0]}: the loss", xlabel="exponent p of the loss")
        row[2].set_ylabel("mean |error| of the four cases")
        for axes in row:
            axes.set_ylim(0, None)
            axes.grid(alpha=0.2)
    figure.legend(*panels[0][1].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    return figure


def _draw_cases(axes: Axes, runs: Results) -> None:
    for k, (method, (color, label)) in enumerate(METHODS.items()):
        for r in chosen(runs, method=method):
            spans = [interval(column) for column in np.array(r["mean"]).T]
            x = np.arange(4) + 0.16 * (k - 2)
            error = [s["mean"] - s["low"] for s in spans]
            axes.bar(x, [s["mean"] for s in spans], 0.16, yerr=error, color=color, label=label, capsize=2)
    axes.set_xticks(range(4), [f"inputs {case}" for case in CASES])


def _draw_widths(axes: Axes, runs: Results, widths: list[int]) -> None:
    for method, (color, label) in METHODS.items():
        spans = [interval(np.array(r["mean"]).mean(1)) for d in widths for r in chosen(runs, method=method, d_mlp=d)]
        if len(spans) == len(widths):
            _line(axes, widths, spans, color, label, "-")
    axes.set_xscale("log")
    axes.set_xticks(widths, [str(d) for d in widths], minor=False)
    axes.minorticks_off()


def _draw_exponents(axes: Axes, runs: Results) -> None:
    styles = {"four": "-", "ones": "--", "natural": ":"}
    names = {"four": "four cases alike", "ones": "ones as much as zeros", "natural": "as they occur"}
    for weights, style in styles.items():
        for method in ("frozen", "trained"):
            group = sorted(chosen(runs, method=method, weights=weights), key=lambda r: r["p"])
            if group:
                spans = [interval(np.array(r["mean"]).mean(1)) for r in group]
                label = f"{'both layers' if method == 'trained' else 'readoff'}, {names[weights]}"
                _line(axes, [r["p"] for r in group], spans, METHODS[method][0], label, style)
    axes.set_xticks([2, 3, 4, 6])
    axes.legend(fontsize="x-small")


def _line(axes: Axes, x: list[int], spans: list[dict[str, float]], color: str, label: str, style: str) -> None:
    axes.plot(x, [s["mean"] for s in spans], style, marker=".", color=color, label=label)
    axes.fill_between(x, [s["low"] for s in spans], [s["high"] for s in spans], color=color, alpha=0.15, lw=0)


def _span(sample: np.ndarray) -> str:
    span = interval(sample)
    return f"{span['mean']:.3f} [{span['low']:.3f}, {span['high']:.3f}]"
