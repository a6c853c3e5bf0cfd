"""One colour for a name, everywhere in a report."""

from collections import Counter, defaultdict

from zoo.report.chart import Series
from zoo.report.document import Report

# Okabe and Ito's colours without black and with a darker yellow, then darker ones of Paul Tol's muted scheme:
# neighbours in the list differ for colour-blind eyes, and all of them are seen on white.
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
    """The name under which a series' colour is looked up."""
    return series.name if series.color is None else series.color


def colors(report: Report) -> dict[str, str]:
    """A colour for every name.

    As long as there are enough, no two names have the same; after that no two names of one chart, if possible.

    Returns:
        Names and colours, `#rrggbb`.
    """
    charts = [[color_name(s) for s in chart.series] for section in report.sections for chart in section.charts]
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
