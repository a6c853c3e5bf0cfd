"""A report with tables that are wider than a phone, or than any window, and long names in legends and on axes."""

from zoo.estimates import Estimate
from zoo.report import Chart, Grid, Report, Section, Series, Table, Verdict

QUESTIONS = [
    [
        "Does training need the embedding?",
        "GPT-2 with frozen random directions with the norms of learned rows ends 0.277 [0.238, 0.315] nats above GPT-2 "
        "with a learned embedding",
        "loss higher by more than 0.1 nats",
        "yes",
    ],
    [
        "Does sparse coding explain the embedding?",
        "Sums of 8 of 256 learned atoms leave 0.242 [0.232, 0.252] of the variance of held-out rows unexplained",
        "at most 0.05, but more than 0.05 for Gaussian rows with the same covariance",
        "cannot tell: Gaussian rows fit as well",
    ],
    ["What changes if rows that look untrained are kept?", "the held-out FVU is 0.244 [0.240, 0.249]", "", "no"],
]
MANY = 14  # columns, more than fit into any window
HALF = Estimate(0.5, 0.25, 0.75, 3)


def wide_report():
    """The report; the verdict has a table of texts and a table of many numbers."""
    asked = Table(["question", "result, with 95 % interval", "it is a yes if", "answer"], QUESTIONS)
    counted = Table(["compared", *(f"autoencoders in group {i}" for i in range(6))], [["KL divergence", *range(6)]])
    numbers = Table(
        ["layer", *(f"error in column {i}" for i in range(MANY))], [[str(i), *[HALF] * MANY] for i in range(9)]
    )
    texts = Table(
        ["reason", "rows", "tokens"],
        [["never occur", 102, ", ".join(f"`` token{i} ``" for i in range(60))], ["path", 3, "/a/long/path" * 12]],
    )
    names = [f"a long name of a series, which is number {i}" for i in range(9)]
    places = [f"a category with a long name {i}" for i in range(7)]
    charts = [
        Chart(
            "lines", "Many lines", [Series(name, [0, 1], [i, i + 1]) for i, name in enumerate(names)], "step", "loss"
        ),
        Chart("bars", "Long names of categories", [Series("share", places, [0.5] * 7, "bars")], "", "share"),
        Chart("grid", "A grid", [], "k", "layer", grid=Grid([*map(str, range(30))], places, [[0.5] * 30] * 7, "nats")),
    ]
    sections = [
        Section("numbers", "Which numbers?", "Some.", tables=[numbers], charts=charts, not_shown="Other numbers."),
        Section("texts", "Which texts?", "Some.", tables=[texts]),
        Section("large", "And in a larger model?", "It needs 60 GB.", tested=False),
    ]
    verdict = Verdict(
        "The embedding is not explained by superposition, as far as this was tested, and training needs it.\n\nSums of "
        "8 atoms leave 0.242 [0.232, 0.252] of the variance unexplained.",
        "Brackets are 95 % intervals over 3 seeds.",
        f"{asked.markdown()}\n\n{counted.markdown()}",
        recognised="Sums of up to 4 atoms with 5 % noise would have been recognised.",
        not_tested="Other methods of sparse coding were not tested.",
    )
    title = "What does a token embedding contain that superposition does not explain?"
    return Report("An embedding of 2,048 tokens", verdict, sections, "embedding", title, "python -m zoo " + "x" * 300)
