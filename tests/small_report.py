"""A report with every style of chart, and tokens that are hard to show."""

import numpy as np
from matplotlib.figure import Figure

from zoo.estimates import Estimate
from zoo.report import Chart, Grid, Report, Section, Series, Table, Verdict

HOSTILE = ["</script><script>bad()</script>", "<b>&amp;\"'", "a\nb\x00", "\ud800", " ", "$x_1$", "_日本", "%{x}<br>"]
TABLE = "| class | residual |\n|---|--:|\n| days | 0.12 |\n| `<script>bad()</script>` | 0.61 |"
RESIDUALS = Table(["class", "residual"], [["days", 0.12], ["`<script>bad()</script>`", 0.61]], digits=2)
WEEK = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def hostile_chart():
    """Eight points with eight difficult tokens, written and pointed at."""
    ones = [1.0] * len(HOSTILE)
    tokens = Series("</script>tokens", range(len(HOSTILE)), ones, "points", labels=HOSTILE, written=True)
    return Chart("hostile", "<i>Tokens</i>", [tokens], "<x>", "y & z", map=True)


def charts():
    """A chart of every kind."""
    x = np.array([0, 1, 10, 100, 1000])
    y = np.array([2.0, 1.0, np.nan, 0.5, 0.25])
    loss = [
        Series("learned", x, y, low=y * 0.9, high=y * 1.1),
        Series("random", x, [3, 2, None, 1, float("inf")], "dashed"),
        Series("third", x, y * 2, "dotted", color="learned"),
    ]
    classes = ["days", "months <b>", "digits"]
    shares = [
        Series("random", classes, [0.5, 0.4, np.nan], "bars", low=[0.4, 0.3, np.nan], high=[0.6, 0.5, np.nan]),
        Series("learned", classes, [0.9, 0.8, 0.7], "bars"),
        Series("dots", classes, [0.2, 0.3, 0.4], "points", low=[0.1, 0.2, 0.3], high=[0.3, 0.4, 0.5]),
    ]
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    circle = Series("order", np.cos(angles), np.sin(angles), "dotted")
    week = Series("days", np.cos(angles), np.sin(angles), "points", labels=WEEK, written=True)
    rng = np.random.default_rng(0)
    cloud = [
        Series(f"class {i}", *rng.normal(size=(2, 40)), "points", labels=[f"t{i}.{j}" for j in range(40)])
        for i in range(10)
    ]
    changes = [[0.75, i / 4] if i else [None, np.nan] for i in range(7)]
    grid = Grid(HOSTILE[:2], WEEK, changes, "change [nats]", darkest=1.0)
    return [
        Chart("loss", "Loss", loss, "step", "loss [nats]", log_x=True, log_y=True, caption="Bands: 95 % intervals."),
        Chart("shares", "Shares", shares, "", "variance explained"),
        Chart("week", "A circle", [circle, week], map=True),
        Chart("cloud", "All tokens", cloud, map=True),
        hostile_chart(),
        Chart("grid", "Changes", [], "<x>", "y & z", caption="Empty: unknown.", grid=grid),
    ]


def small_report(folder):
    """The report; its one picture is written to the folder."""
    figure = Figure(figsize=(4, 1))
    figure.add_subplot().plot([1, 2, 3])
    figure.savefig(folder / "panels.png")
    first, *others = charts()
    spread = Table(["a | b", "mean"], [["x", Estimate(0.5, 0.25, 0.75, 3)], ["y", np.nan]], note="Over 3 seeds.")
    sections = [
        Section(
            "A1",
            "Is it slower?",
            "Yes, by **0.41** nats; <script>bad()</script> ![x](https://example.com/x.png) [y](https://example.com)",
            tables=[RESIDUALS, "Some words.", spread],
            charts=[first],
            pictures=[folder / "panels.png"],
            null_models="Random rows.",
            not_shown="Nothing about others.",
            command="python -m zoo study a && echo '<done>'",
            numbers={"mean": np.float32(0.5), "all": np.array([1.0, np.nan]), "n": np.int64(3), 4: {"inf": np.inf}},
        ),
        Section("A2", "Circles?", "Some.", charts=others),
        Section("A3", "Larger models?", "It needs 6 GB.", tested=False, tables=[RESIDUALS], command="never shown"),
    ]
    verdict = Verdict("Yes, it does.", "Fairly sure.", TABLE, {"p": np.float64(0.01)})
    settings = {"seeds": range(3), "folder": folder, "token": "\ud800"}
    costs = Table(["tasks", "minutes"], [["Learn", 1.0]], digits=1)
    return Report("`wte` of gpt2", verdict, sections, "small", "Is there <more>?", "python -m zoo", settings, costs)
