"""Are the atoms that basis pursuit finds for one kind of token near each other?

A dictionary is learned from the rows of the embedding. Each atom is labelled by the kind of token (word, number, ...)
that uses it most. Two atoms are neighbours if their absolute cosine is large. The study measures how often neighbouring
atoms have the same label, and compares this with dictionaries of Gaussian rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from zoo import estimates
from zoo.errors import ZooError
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.dictionaries import LearnDictionaries
from zoo.shared_tasks.pursuit import StudyOfDictionaries
from zoo.shared_tasks.structure import ALPHA, StudyOfStructure, told_of_tests
from zoo.study import Result, Results, Task, Work

MATRICES = {"embedding": "embedding", "covariance-matched": "null model"}


@dataclass(frozen=True)
class KindsOfAtoms(Task):
    """Agreement between an atom's kind of token and that of its neighbours, at the middle one of the penalties."""

    learned: LearnDictionaries

    def needs(self) -> Sequence[Task]:
        """Return the tasks that learn the atoms and read the rows."""
        return [self.learned, self.learned.rows]

    def seconds(self) -> float:
        """Return a guess. For seed 0 most of the time is the compilation of UMAP."""
        return 20.0 if self.learned.seed == 0 else 2.0

    def do(self, work: Work) -> Result:
        """Return the agreement of neighbouring atoms, the purity of their labels and, for seed 0, a map."""
        import torch

        from zoo.analysis.atom_kinds import atom_kinds

        rows, task = work[self.learned.rows], self.learned
        if rows["tokens"] is None:
            raise ZooError("the tokens of the rows are not known; add --tokens FILE")
        at, data = len(task.penalties) // 2, task.data(rows)
        atoms = torch.from_numpy(work[task]["atoms"][at])
        return atom_kinds(data.W_E, data.held_out, atoms, task.penalties[at], rows["tokens"], task.seed == 0)


@dataclass(frozen=True)
class AtomNeighbours(StudyOfDictionaries, StudyOfStructure):
    """The labels of neighbouring atoms are compared, in the embedding and in a null model."""

    @cached_property
    def _atoms(self) -> dict[str, list[KindsOfAtoms]]:
        return {matrix: [KindsOfAtoms(task) for task in self.learn(matrix)] for matrix in MATRICES}

    def tasks(self) -> Sequence[Task]:
        """Return the tasks for the atoms of the embedding and of its null model, and the search in the rows."""
        return [*(task for tasks in self._atoms.values() for task in tasks), *self.search()]

    def report(self, results: Results) -> Report:
        """Return a report on the agreement of neighbours in the embedding and in its null model."""
        from zoo.analysis.neighbour_agreement import beyond_null

        found = {matrix: [results[task] for task in tasks] for matrix, tasks in self._atoms.items()}
        real, null = found.values()
        told = {key: {m: estimates.mean([r[key] for r in found[m]]) for m in MATRICES} for key in ("kappa", "purity")}
        p, of_purity = (
            beyond_null(float(np.mean([r[key] for r in real])), [r[key] for r in null]) for key in ("kappa", "purity")
        )
        searched = self.searched(results)
        rows = searched["found"]["agreement"]
        in_null = [model["agreement"]["kappa"] for model in searched["null"] if model["agreement"]]
        lines: list[list[Any]] = [
            ["agreement of an atom with its 5 nearest atoms (kappa)", *told["kappa"].values(), f"{p:.2g}"],
            ["purity: share of the 10 tokens that use an atom most", *told["purity"].values(), f"{of_purity:.2g}"],
        ]
        if rows:
            middle = f"{np.mean(in_null):.3f} (maximum of {len(in_null)} draws: {max(in_null):.3f})"
            p_value = f"{rows['p_value']:.2g} (labels permuted)"
            lines.append(["agreement of a row with its 5 nearest rows (kappa)", rows["kappa"], middle, p_value])
        bars = [
            Series.of(name, list(told), [of[matrix] for of in told.values()], "bars")
            for matrix, name in MATRICES.items()
        ]
        more = "more" if p <= ALPHA else "not clearly more"
        kappa = told["kappa"]
        section = Section(
            self.name,
            "Are the atoms of one kind of token near each other?",
            f"Neighbouring atoms have the same kind of token {more} often than on Gaussian rows: kappa is "
            f"{kappa['embedding']} against {kappa['covariance-matched']} (p = {p:.2g}, not corrected for the number of "
            "tests). Kappa is 0 by chance and 1 if all neighbours agree.",
            tables=[
                Table(["", "embedding", "covariance-matched", "p: one more draw of the null model is as high"], lines)
            ],
            charts=[
                *(_map(matrix, found[matrix][0]) for matrix in MATRICES),
                Chart(
                    f"{self.name}-agreement",
                    "Agreement of neighbouring atoms, and purity of their labels",
                    bars,
                    "",
                    "kappa, or share of tokens",
                    caption="Whiskers: 95 % intervals.",
                ),
            ],
            null_models="Atoms learned on Gaussian rows with the embedding's covariance and labelled with its tokens. "
            + told_of_tests(searched),
            not_shown=(
                "It does not show that kinds of token form clusters. Kinds are taken from the spelling (word, "
                "continuation, number, ...), and the embedding may be organised by something else. All numbers are "
                "computed in all dimensions of the embedding; nothing is concluded from the maps."
            ),
            numbers={**told, "p_value": p, "rows": rows, "rows_of_null_models": in_null},
        )
        certainty = (
            f"Brackets are 95 % intervals over {self.seeds} dictionaries. The p-value is that of a single comparison."
        )
        return Report(self.source, Verdict(section.finding, certainty, numbers={"p_value": p, **told}), [section])


def _map(matrix: str, line: Result) -> Chart:
    places, method = np.array(line["map"]["places"]), line["map"]["method"]
    series = []
    for label in sorted(set(line["labels"]), key=lambda x: -line["labels"].count(x)):
        chosen = [i for i, own in enumerate(line["labels"]) if own == label]
        x, y = places[chosen].T.tolist()
        series.append(Series(label, x, y, "points", labels=[line["tokens"][i] for i in chosen]))
    return Chart(
        f"atom-neighbours-{matrix.split('-')[0]}",
        f"Map of the atoms of the {MATRICES[matrix]}, by {method}",
        series,
        map=True,
        caption="Each point is an atom, coloured by the most frequent kind among the tokens that use it most. Hover "
        "over a point to read these tokens. Islands on such a map are no evidence: Gaussian rows give them too.",
    )
