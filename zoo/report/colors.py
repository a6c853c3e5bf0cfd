"""Assigns a colour to every name of a series, the same in all charts of a report."""

from collections import Counter, defaultdict

from zoo.report.chart import Series
from zoo.report.document import Report

# Colours of Okabe and Ito without black and with a darker yellow, then darker colours of Paul Tol's muted scheme.
# Neighbours in the list differ for colour-blind readers, and all colours are visible on white.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#8c8c00",
    "#332288",
    "#44aa99",
    "#7f7f7f",
    "#a6761d",
)


def color_name(series: Series) -> str:
    """Return the name that determines a series' colour."""
    return series.name if series.color is None else series.color


def colors(report: Report) -> dict[str, str]:
    """Return a colour for every name of a series.

    If there are enough colours, all names have different ones. If not, the names in one chart have different colours if
    possible.

    Returns:
        Colours, `#rrggbb`, by name.
    """
    charts = [[color_name(s) for s in chart.series] for chart in report.charts()]
    beside = defaultdict(set)
    for names in charts:
        for name in names:
            beside[name].update(names)
    found: dict[str, str] = {}
    used: Counter[str] = Counter()
    for name in (name for names in charts for name in names):
        if name not in found:
            near = {found[other] for other in beside[name] if other in found}
            found[name] = min(PALETTE, key=lambda color: (color in near, used[color]))
            used[found[name]] += 1
    return found
