"""In pairs of related tokens, such as singular and plural, is one row a matrix times the other row?

One row of each pair is predicted from the other by a matrix and by simpler models: an offset, a scale and an offset,
one scale per direction, and a rotation. All models are cross-validated. The same search is made in draws of a null
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.structure import StudyOfStructure, findings_of, one_test, told_of_tests
from zoo.studies.circles import certainty, numbers
from zoo.study import Results, Task

MODELS = {
    "offset": "offset",
    "scale_offset": "scale, offset",
    "shrinkage": "scale per direction, offset",
    "rotation": "scaled rotation, offset",
    "matrix": "matrix (ridge)",
    "shuffled": "matrix, pairs shuffled",
}
CLEAR_GAIN = 0.05  # gain in R² of a matrix over scale and offset above which it counts as a finding


@dataclass(frozen=True)
class Binding(StudyOfStructure):
    """One row of each pair is predicted from the other by a matrix and by simpler models, and compared."""

    def tasks(self) -> Sequence[Task]:
        """Return the tasks that search the rows and draws of the null model."""
        return self.search()

    def report(self, results: Results) -> Report:
        """Return a report on how well each model predicts one row of a pair from the other, for every relation."""
        searched = self.searched(results)
        title = "In pairs of related tokens, is one row a matrix times the other?"
        V, D = self.shape
        subject = f"{self.source}: {V:,} tokens in {D} dimensions"
        if not searched["found"]["relations"]:
            known = searched["tokens"] is not None
            why = "No relation has 40 pairs among the tokens." if known else "The tokens are not known; add --tokens."
            section = Section(self.name, title, why, tested=False)
        else:
            section = self._section(title, searched)
        return Report(subject, Verdict(section.finding, certainty(searched), numbers=numbers(searched)), [section])

    def _section(self, title: str, searched: dict[str, Any]) -> Section:
        found, null = searched["found"]["relations"], [model["relations"] for model in searched["null"]]
        names = list(found)
        most = max(names, key=lambda name: min(found[name]["gain"], found[name]["class_gain"]))
        if bound := findings_of(searched, "binding"):
            ranks = ", ".join(f"{name} (rank {found[name]['rank']})" for name in bound)
            finding = (
                "A matrix predicts better than scale, offset and shrinkage for the relations "
                f"{ranks}, also for kinds of words that it was not fitted on."
            )
        else:
            finding = (
                f"In none of {len(names)} relations does a matrix gain more than {CLEAR_GAIN:g} in cross-validated R² "
                f"over scale, offset and shrinkage. The gain is largest in {most}: R² is "
                f"{found[most]['scale_offset']:.3f} with scale and offset and {found[most]['matrix']:.3f} with a "
                "matrix."
            )
        by_model = [Series(text, names, [found[n][m] for n in names], "bars") for m, text in MODELS.items()]
        by_rank = [
            Series(name, list(range(1, len(found[name]["gain_by_rank"]))), found[name]["gain_by_rank"][1:])
            for name in names
        ]
        gains = [model[n]["gain"] for model in null for n in model if n in found]
        return Section(
            self.name,
            title,
            finding,
            tables=[_table(searched)],
            charts=[
                Chart("binding-models", "Prediction of one row from the other", by_model, "", "cross-validated R²"),
                Chart(
                    "binding-ranks",
                    "Gain of a matrix over a scale, by rank of the matrix",
                    by_rank,
                    "rank",
                    "gain in R²",
                    log_x=True,
                ),
            ],
            null_models=(
                "Models: scale and offset; a scale per direction; a rotation; a matrix after shuffling the pairs. For "
                "p-values, the residuals of scale and offset get random signs. On covariance-matched rows the largest "
                f"of {len(gains)} gains is {max(gains, default=float('nan')):.3f}. " + told_of_tests(searched)
            ),
            not_shown=(
                "Relations that do not show in spelling, relations of more than two tokens, and nonlinear maps are not "
                "tested. A small gain with a small p is significant, but binding by a matrix would give a large gain."
            ),
            numbers={"relations": found, "tests": [t for t in searched["tests"] if t["kind"] == "binding"]},
        )


def _table(searched: dict[str, Any]) -> Table:
    rows = []
    for name, r in searched["found"]["relations"].items():
        row = [f"{name} ({r['example']})", f"{r['pairs']} of {r['all_pairs']}", *(r[model] for model in MODELS)]
        row += [r["gain"], r["class_gain"], f"{one_test(searched, 'binding', name)['adjusted']:.2g}", r["rank"]]
        rows.append(row)
    columns = [
        "relation",
        "pairs",
        *MODELS.values(),
        "gain of the matrix",
        "gain on new kinds",
        "p, adjusted",
        "rank",
    ]
    note = (
        "Cross-validated R² of the second row of a pair, predicted from the first. A finding requires a gain above "
        f"{CLEAR_GAIN:g} both on random folds and on folds that are clusters of the first rows (new kinds). Rank is "
        "the smallest rank of the matrix with 95 % of the gain."
    )
    return Table(columns, rows, note=note)
