"""The table and the picture of `basis_pursuit`."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.analysis.limits import limit
from zoo.studies.intervals import difference_from_draws, interval
from zoo.studies.sparse_rows_report import at_l0

NOTHING_LEFT = 0.01  # FVU below which more atoms a row can hardly help
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")
Lines = Sequence[dict[str, Any]]


class Results:
    """Lines of the study, by what they belong to.

    Args:
        lines: What the study found.
        settings: How it was made.
    """

    def __init__(self, lines: Lines, settings: dict[str, Any]) -> None:
        self.lines, self.steps, self.at_l0 = lines, settings["steps"], settings["at_l0"]
        self.sources = settings["sources"]
        self.seeds = sorted({line["seed"] for line in lines})

    def curve(self, step: Any, matrix: str, coder: str, x: str, y: str, source: str, seed: int) -> np.ndarray:
        """One dictionary's points (n, 2) along the penalties, ascending in x."""
        wanted = {"step": step, "matrix": matrix, "coder": coder, "source": source, "seed": seed}
        chosen = [r for r in self.lines if y in r and all(r[k] == v for k, v in wanted.items())]
        return np.array(sorted((r[x], r[y]) for r in chosen)).reshape(-1, 2)

    def values(self, read: Callable[[str, int], float]) -> np.ndarray:
        """A number for every independent unit: for every source, its seeds averaged, or for every seed of the one."""
        table = np.array([[read(source, seed) for seed in self.seeds] for source in self.sources])
        return table.mean(1) if len(self.sources) > 1 else table[0]

    def at(self, step: Any, matrix: str, y: str, coder: str = "basis pursuit", x: str = "l0") -> np.ndarray:
        """A measure at one L0, interpolated along each curve, for every unit.

        Where codes of fewer atoms leave next to nothing over, it is that of these codes.
        """

        def read(source: str, seed: int) -> float:
            points = self.curve(step, matrix, coder, x, y, source, seed)
            errors = self.curve(step, matrix, coder, "train_l0", "train_fvu_debiased", source, seed)
            if len(points) and len(errors) and errors[:, 1].min() < NOTHING_LEFT and points[-1, 0] < self.at_l0:
                return float(points[-1, 1])
            return at_l0(points, self.at_l0)

        return self.values(read)

    def least(self, step: Any, matrix: str, y: str) -> np.ndarray:
        """The least of a measure along the penalties, for every unit."""
        return self.values(
            lambda source, seed: self.curve(step, matrix, "basis pursuit", "penalty", y, source, seed)[:, 1].min()
        )

    def against_null(self, real: np.ndarray, null: np.ndarray) -> dict[str, float]:
        """Interval of the difference: of a mean over runs of pretraining, or from draws of the null model of one."""
        return interval(real - null) if len(self.sources) > 1 else difference_from_draws(real, null)

    def found(self, step: Any, matrix: str, key: str) -> list[float]:
        """All numbers under a key."""
        return [r[key] for r in self.lines if (r["step"], r["matrix"]) == (step, matrix) and key in r]


def table(lines: Lines, settings: dict[str, Any], matrices: Sequence[str]) -> str:
    """Errors at one L0 with intervals, over matrices and over steps, in Markdown."""
    results, last = Results(lines, settings), settings["steps"][-1]
    parts = [_by_matrix(results, last, matrices)]
    if len(results.steps) > 1:
        parts.append(_by_step(results, matrices))
    uncertified = sum(int(r.get("uncertified", 0)) for r in lines)
    coded = sum("uncertified" in r for r in lines)
    largest = max(r["largest_gap"] for r in lines if "largest_gap" in r)
    sources, seeds, n_eff = len(results.sources), len(results.seeds), settings["n_eff"]
    unit = f"{sources} runs of pretraining, of {seeds} seeds each" if sources > 1 else f"{seeds} seeds"
    penalties = ", ".join(f"{p:g}" for p in settings["penalties"])
    intervals = (
        "95 % Student t intervals over runs, differences paired"
        if sources > 1
        else "95 % Student t intervals over seeds; those of differences ask whether one more draw of the null model "
        "could be as far from the others"
    )
    parts.append(
        f"{unit}; brackets are {intervals}. Codes are the certified optima at penalties {penalties}, and at others "
        f"beyond these where that takes to reach L0 {results.at_l0}; their errors are interpolated in log L0. Where "
        f"fewer atoms leave less than {NOTHING_LEFT:g} of the variance over, the error is that of these. Codes by "
        f"matching pursuit have {results.at_l0} atoms in every row and no certificate; for learned atoms the best "
        f"dictionary along the penalties counts. "
        f"{settings['n_atoms']} atoms, {settings['dictionary_steps']} codings of all rows at each penalty, weights "
        f"p^{settings['frequency_power']:g} (n_eff {n_eff:,}). Of the optima of all rows in {coded} dictionaries "
        f"{uncertified} rows are not certified, largest gap {largest:.1e} of the objective. The mean alone has FVU 1."
    )
    if settings["n_atoms"] < settings["d_in"]:
        parts.append(
            f"{settings['n_atoms']} atoms do not span {settings['d_in']} dimensions: the gauge norm at error 0 does "
            "not exist, and no rows can be planted that would be superpositions of more atoms than dimensions and "
            "still be found."
        )
    elif "planted" not in matrices:
        parts.append(
            f"With {settings['n_atoms']} atoms in {settings['d_in']} dimensions there is no positive control: planted "
            "rows need more atoms than dimensions, and a dictionary more than these."
        )
    return "\n\n".join(parts) + "\n"


def _by_matrix(results: Results, step: Any, matrices: Sequence[str]) -> str:
    def row(label: str, values: Callable[[str], np.ndarray]) -> str:
        cells = [values(matrix) for matrix in matrices]
        return _row([label, *map(_text, cells), _spelled(results.against_null(cells[0], cells[1]))])

    def plain(label: str, key: str) -> str:
        found = {matrix: results.found(step, matrix, key) for matrix in matrices}
        return _row([label, *(f"{np.mean(v):.3f}" if v else "-" for v in found.values()), "-"])

    title = f"step {step}, " if step is not None else ""
    lines = [
        *_head([f"{title}at L0 {results.at_l0}", *matrices, f"{matrices[0]} - {matrices[1]}"]),
        row("held-out FVU, debiased", lambda m: results.at(step, m, "fvu_debiased")),
        row("held-out FVU, shrunk", lambda m: results.at(step, m, "fvu")),
        row("FVU of rows trained on, debiased", lambda m: results.at(step, m, "train_fvu_debiased", x="train_l0")),
        row("learned atoms, matching pursuit", lambda m: results.least(step, m, "fvu_pursued")),
        *(row(f"{n}, matching pursuit", lambda m, n=n: results.at(step, m, "fvu_debiased", n)) for n in UNLEARNED),  # type: ignore[misc]
        row("principal components at the same bits", lambda m: results.at(step, m, "pca_fvu")),
        row("bits per row, 8 a number", lambda m: results.at(step, m, "bits_per_row")),
        row("FVU of all rows at these bits", lambda m: results.at(step, m, "fvu_at_bits")),
        row("bits a Gaussian needs for it", lambda m: results.at(step, m, "gaussian_bits_per_row")),
        plain("gauge norm at error 0", "gauge"),
        plain("the same with random directions", "gauge_of_random_directions"),
        plain("likeness of two seeds' atoms, smallest penalty", "cosine"),
        plain("likeness of two seeds' random rows", "cosine_of_rows"),
    ]
    planted = results.found(step, "planted", "matched_cosine")
    if planted:
        found = f"{max(planted):.3f}"
        lines += ["", f"Largest mean cosine of the planted atoms, each matched with an atom of its own: {found}."]
    return "\n".join(lines)


def _by_step(results: Results, matrices: Sequence[str]) -> str:
    columns = ["held-out FVU, debiased", *matrices[:2], f"{matrices[0]} - {matrices[1]}", "shrunk, difference"]
    lines = _head(columns)
    for step in results.steps:
        real, null = (results.at(step, m, "fvu_debiased") for m in matrices[:2])
        shrunk = results.against_null(results.at(step, matrices[0], "fvu"), results.at(step, matrices[1], "fvu"))
        difference = results.against_null(real, null)
        lines.append(_row([f"step {step}", _text(real), _text(null), _spelled(difference), _spelled(shrunk)]))
    return "\n".join([*lines, "", *_limits(results, matrices)])


def _limits(results: Results, matrices: Sequence[str]) -> list[str]:
    """Sentences on where the error and its distance from the null model are going, from steps above 0."""
    steps = [s for s in results.steps if s]
    real, null = (np.array([results.at(s, m, "fvu_debiased") for s in steps]) for m in matrices[:2])  # (steps, units)
    told = []
    for name, curves in (("the embedding's error", real), ("its distance from the null model's", real - null)):
        after = int(np.abs(curves.mean(1) - curves[-1].mean()).argmax())  # where the way to the last value begins
        if len(steps) - after < 5 or not np.isfinite(curves).all():
            told.append(f"Limit of {name}: not fitted, as fewer than 5 steps lie on one way to the last value.")
            continue
        mean = limit(np.array(steps[after:]), curves[after:].mean(1))
        text = f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
        text += f" with exponent {mean.exponent:.2f}, from step {steps[after]} on"
        if len(results.sources) > 1:
            own = [limit(np.array(steps[after:]), curve).value for curve in curves[after:].T]
            text += f"; fitted for every run on its own {_text(np.array(own))}"
        told.append(f"Limit of {name} under limit + b step^-c: {text}.")
    return told


def draw(lines: Lines, settings: dict[str, Any], matrices: Sequence[str]) -> Figure:
    """FVU against L0, penalty, bits and step, and how alike dictionaries are."""
    results, last = Results(lines, settings), settings["steps"][-1]
    figure = Figure(figsize=(15, 9), layout="constrained")
    panels = figure.subplots(2, 3)
    color = dict(zip(matrices, matplotlib.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    _curves(panels[0, 0], results, last, color, "l0", "fvu_debiased", "train_l0", "train_fvu_debiased")
    panels[0, 0].set(xscale="log", xlabel="L0", ylabel="FVU, debiased", title="solid: held out, dashed: trained on")
    _curves(panels[0, 1], results, last, color, "penalty", "fvu", "penalty", "train_fvu")
    panels[0, 1].set(xscale="log", xlabel="penalty", ylabel="FVU, shrunk", title="certified optima")
    _curves(panels[0, 2], results, last, color, "bits_per_row", "fvu_at_bits")
    for matrix in matrices:
        points = np.array(
            sorted(
                zip(*(results.found(last, matrix, k) for k in ("gaussian_bits_per_row", "fvu_at_bits")), strict=True)
            )
        )
        panels[0, 2].plot(*points.T, color=color[matrix], lw=1, ls=":")
    panels[0, 2].set(
        xlabel="bits per row, dictionary included", ylabel="FVU of all rows", title="dotted: a Gaussian's bound"
    )
    if len(results.steps) > 1:
        _over_steps(panels[1, 0], results, matrices, color)
    else:
        _pursued(panels[1, 0], results, last, color)
    _at_every_step(panels[1, 1], results, matrices[0])
    for matrix in matrices:
        chosen = [r for r in lines if r["coder"] == "stability" and r["matrix"] == matrix and r["step"] == last]
        for style, key in (("-", "cosine"), (":", "cosine_of_rows")):
            points = np.array(
                sorted(
                    {(r["penalty"], np.mean([q[key] for q in chosen if q["penalty"] == r["penalty"]])) for r in chosen}
                )
            )
            panels[1, 2].plot(*points.T, color=color[matrix], ls=style, marker="." if style == "-" else None)
    panels[1, 2].set(
        xscale="log", xlabel="penalty", ylabel="mean best |cosine|", title="two seeds' atoms; dotted: their random rows"
    )
    for axes in panels.flat:
        axes.grid(alpha=0.2)
    handles = [panels[0, 0].plot([], color=color[m])[0] for m in matrices]
    figure.legend(handles, matrices, loc="outside lower center", ncols=len(matrices))
    return figure


def _curves(
    axes: Axes,
    results: Results,
    step: Any,
    color: dict[str, Any],
    x: str,
    y: str,
    x_train: str | None = None,
    y_train: str | None = None,
) -> None:
    for matrix, c in color.items():
        for source in results.sources:
            for seed in results.seeds:
                axes.plot(
                    *results.curve(step, matrix, "basis pursuit", x, y, source, seed).T, color=c, marker=".", lw=1
                )
                if x_train and y_train:
                    points = results.curve(step, matrix, "basis pursuit", x_train, y_train, source, seed)
                    axes.plot(*points.T, color=c, lw=0.7, ls="--")
    axes.set_ylim(bottom=0)


def _over_steps(axes: Axes, results: Results, matrices: Sequence[str], color: dict[str, Any]) -> None:
    steps = results.steps
    for matrix in matrices[:2]:
        values = [interval(v) for v in (results.at(s, matrix, "fvu_debiased") for s in steps)]
        mean, low, high = ([v[k] for v in values] for k in ("mean", "low", "high"))
        where = [s or 0 for s in steps]
        axes.plot(where, mean, color=color[matrix], marker=".")
        axes.fill_between(where, low, high, color=color[matrix], alpha=0.2, lw=0)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="step of pretraining", ylabel="FVU, debiased, held out")
    axes.set_title(f"at L0 {results.at_l0}, with 95 % intervals")


def _pursued(axes: Axes, results: Results, step: Any, color: dict[str, Any]) -> None:
    _curves(axes, results, step, color, "penalty", "fvu_pursued")
    axes.set(xscale="log", xlabel="penalty", ylabel="FVU, held out")
    axes.set_title(f"matching pursuit with {results.at_l0} atoms a row")


def _at_every_step(axes: Axes, results: Results, matrix: str) -> None:
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(results.steps)))
    for step, shade in zip(results.steps, shades, strict=True):
        for i, seed in enumerate(results.seeds):
            points = results.curve(step, matrix, "basis pursuit", "l0", "fvu_debiased", results.sources[0], seed)
            label = f"step {step}" if step is not None else matrix
            axes.plot(*points.T, color=shade, lw=1, label=None if i else label)
    every = " at every step" if len(results.steps) > 1 else ""
    axes.set(xscale="log", xlabel="L0", ylabel="FVU, debiased, held out", title=f"the {matrix}{every}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small")


def _head(columns: Sequence[str]) -> list[str]:
    return [_row(columns), "|---" * len(columns) + "|"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(values: np.ndarray) -> str:
    return _spelled(interval(values))


def _spelled(i: dict[str, float]) -> str:
    return f"{i['mean']:.3f} [{i['low']:.3f}, {i['high']:.3f}]" if np.isfinite(i["mean"]) else "-"
