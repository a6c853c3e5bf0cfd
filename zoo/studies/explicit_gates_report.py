"""Table and picture of the study `explicit_gates`."""

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.studies.intervals import interval

Results = list[dict[str, Any]]
COLORS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]


def of_kind(results: Results, kind: str, *setting: Any) -> Results:
    """Simulations of a kind, and of a setting; None stands for any value."""
    wanted = [r for r in results if r["kind"] == kind]
    return [r for r in wanted if all(w in (None, s) for w, s in zip(setting, r["setting"], strict=False))]


def values(results: Results, index: int) -> list[Any]:
    """What the settings have at a place, in order of appearance."""
    return list(dict.fromkeys(r["setting"][index] for r in results))


def exponents(results: Results, gate: str, on: str) -> dict[str, dict[str, float]]:
    """Slope of log error of 00 against log d, of the mean and of the largest error, with its interval over seeds."""
    found: dict[str, dict[str, float]] = {}
    for name in ("mean", "max"):
        slopes = []
        for seed in sorted({r["seed"] for r in results}):
            points = [r for r in of_kind(results, "width", gate, on) if r["seed"] == seed]
            d, error = [r["setting"][2] for r in points], [r[name]["00"] for r in points]
            slopes.append(np.polyfit(np.log(d), np.log(error), 1)[0])
        found[name] = interval(np.array(slopes))
    return found


def table(results: Results) -> str:
    """What was found beside what theory says, in Markdown."""
    return "\n\n".join(tables(results).values()) + "\n"


def tables(results: Results) -> dict[str, str]:
    """The parts of `table`: `width`, `exponents`, `used_at`, `superposed` and `depth`."""
    parts = {}
    lines = [
        "| gate | inputs on | d | rms error of 00 | theory | ratio | mean error 00 / 01 / 10 / 11 | largest |",
        "|---" * 8 + "|",
    ]
    for gate, on, d in dict.fromkeys(tuple(r["setting"]) for r in of_kind(results, "width")):
        rows = of_kind(results, "width", gate, on, d)
        rms, theory = np.array([r["rms"]["00"] for r in rows]), rows[0]["theory"]
        ratio = "" if math.isnan(theory) else _span(rms / theory, 3)
        errors = " / ".join(f"{np.mean([r['mean'][case] for r in rows]):.3f}" for case in ("00", "01", "10", "11"))
        most = np.mean([max(r["max"].values()) for r in rows])
        cells = [
            gate,
            on,
            f"{d:,}",
            _span(rms),
            "" if math.isnan(theory) else f"{theory:.4f}",
            ratio,
            errors,
            f"{most:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    parts["width"] = "\n".join(lines)
    lines = ["| gate | inputs on | exponent of the mean error | of the largest |", "|---" * 4 + "|"]
    for gate, on in dict.fromkeys(tuple(r["setting"][:2]) for r in of_kind(results, "width")):
        slope = exponents(results, gate, on)
        lines.append(f"| {gate} | {on} | {_interval(slope['mean'])} | {_interval(slope['max'])} |")
    parts["exponents"] = "\n".join(lines)
    lines = ["| inputs on, built for 4 | mean output of 11 | theory | of 00 |", "|---" * 4 + "|"]
    for (on,) in dict.fromkeys(tuple(r["setting"]) for r in of_kind(results, "used_at")):
        rows = of_kind(results, "used_at", on)
        ones = 1 + np.array([r["bias"]["11"] for r in rows])
        zeros = np.array([r["bias"]["00"] for r in rows])
        lines.append(f"| {on} | {_span(ones, 3)} | {rows[0]['theory']:.3f} | {_span(zeros, 4)} |")
    parts["used_at"] = "\n".join(lines)
    lines = ["| d0 | d | rms error of 00 | theory | its floor |", "|---" * 5 + "|"]
    for d0, d in dict.fromkeys(tuple(r["setting"]) for r in of_kind(results, "superposed")):
        rows = of_kind(results, "superposed", d0, d)
        rms = np.array([r["rms"]["00"] for r in rows])
        theory, floor = (np.mean([r[name] for r in rows]) for name in ("theory", "floor"))
        lines.append(f"| {d0:,} | {d:,} | {_span(rms)} | {theory:.4f} | {floor:.4f} |")
    parts["superposed"] = "\n".join(lines)
    depths = of_kind(results, "depth")
    head = [f"depth {t + 1}" for t in range(len(depths[0]["rms"]))]
    lines = [f"| d | error correction | {' | '.join(head)} |", "|---" * (2 + len(head)) + "|"]
    for d, corrected in dict.fromkeys(tuple(r["setting"]) for r in depths):
        rows = of_kind(results, "depth", d, corrected)
        cells = [_span(np.array([r["rms"][t] for r in rows]), 3) for t in range(len(head))]
        lines.append(f"| {d:,} | {'yes' if corrected else 'no'} | {' | '.join(cells)} |")
    parts["depth"] = "\n".join(lines)
    return parts


def draw(results: Results) -> Figure:
    """Error against width, use at other numbers of inputs, superposed inputs, and depth; lines are the theory's."""
    figure = Figure(figsize=(12, 8.5), dpi=110, layout="constrained")
    (widths, used), (superposed, depth) = figure.subplots(2, 2)
    _draw_widths(widths, results)
    on = values(of_kind(results, "used_at"), 0)
    _points(used, on, [[1 + r["bias"]["11"] for r in of_kind(results, "used_at", n)] for n in on], "C3", "11")
    _points(used, on, [[r["bias"]["00"] for r in of_kind(results, "used_at", n)] for n in on], "C7", "00")
    used.plot(on, [of_kind(results, "used_at", n)[0]["theory"] for n in on], color="C3", lw=1)
    used.axhline(0, color="C7", lw=1)
    used.set(xlabel="inputs that are on", ylabel="mean output", title="AND readoff built for 4 inputs, used at others")
    used.legend(title="case")
    shown = of_kind(results, "superposed")
    d0s = values(shown, 0)
    for color, d in zip(COLORS, values(shown, 1), strict=False):
        rows = [of_kind(results, "superposed", d0, d) for d0 in d0s]
        _points(superposed, d0s, [[r["rms"]["00"] for r in group] for group in rows], color, f"d = {d:,}")
        superposed.plot(d0s, [np.mean([r["theory"] for r in group]) for group in rows], color=color, lw=1)
    floors = [np.mean([r["floor"] for r in of_kind(results, "superposed", d0)]) for d0 in d0s]
    superposed.plot(d0s, floors, color="black", ls="--", lw=1, label="floor: d without end")
    superposed.set(xscale="log", yscale="log", xlabel="d0, dimensions that the inputs are superposed in")
    superposed.set(ylabel="rms error of 00", title="AND of superposed inputs, 2 on")
    superposed.legend()
    for color, d in zip(COLORS, values(of_kind(results, "depth"), 0), strict=False):
        for corrected, style in ((False, "--"), (True, "-")):
            mean = np.mean([r["rms"] for r in of_kind(results, "depth", d, corrected)], axis=0)
            label = f"d = {d:,}" + (", corrected" if corrected else "")
            depth.plot(range(1, len(mean) + 1), mean, style, marker=".", color=color, label=label)
    depth.set(
        yscale="log", xlabel="depth", ylabel="rms error", title="ANDs, then ORs of ORs, with and without correction"
    )
    depth.set_xticks(range(1, len(mean) + 1))
    depth.legend(fontsize="small")
    for axes in (widths, used, superposed, depth):
        axes.grid(alpha=0.2, which="both")
    return figure


def _draw_widths(axes: Axes, results: Results) -> None:
    for color, on in zip(COLORS, values(of_kind(results, "width"), 1), strict=False):
        d = values(of_kind(results, "width"), 2)
        rows = [of_kind(results, "width", "and", on, n) for n in d]
        _points(axes, d, [[r["rms"]["00"] for r in group] for group in rows], color, f"{on} on")
        axes.plot(d, [group[0]["theory"] for group in rows], color=color, lw=1)
        most = [np.mean([r["max"]["00"] for r in group]) for group in rows]
        axes.plot(d, most, color=color, ls=":", lw=1)
    axes.axhline(0.25, color="black", ls="--", lw=1, label="affine in the inputs")
    axes.set(xscale="log", yscale="log", xlabel="neurons d", ylabel="error of 00: rms; dotted: largest")
    axes.set_title("AND by the explicit readoff")
    axes.legend(fontsize="small")


def _points(axes: Axes, x: list[Any], samples: list[list[float]], color: Any, label: str) -> None:
    spans = [interval(np.array(sample)) for sample in samples]
    mean = np.array([s["mean"] for s in spans])
    bars = np.array([[s["mean"] - s["low"] for s in spans], [s["high"] - s["mean"] for s in spans]])
    axes.errorbar(x, mean, yerr=bars, fmt="o", ms=4, color=color, capsize=2, label=label)


def _span(sample: np.ndarray, digits: int = 4) -> str:
    return _interval(interval(sample), digits)


def _interval(span: dict[str, float], digits: int = 3) -> str:
    return f"{span['mean']:.{digits}f} [{span['low']:.{digits}f}, {span['high']:.{digits}f}]"
