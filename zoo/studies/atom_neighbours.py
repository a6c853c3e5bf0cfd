"""Are the atoms that basis pursuit finds for one kind of token near each other?"""

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
    """How the atoms of one matrix and seed are organised by the kind of token, at the middle one of the penalties."""

    learned: LearnDictionaries

    def needs(self) -> Sequence[Task]:
        """The atoms and the rows."""
        return [self.learned, self.learned.rows]

    def seconds(self) -> float:
        """A guess; most of it is what UMAP takes to be compiled."""
        return 20.0 if self.learned.seed == 0 else 2.0

    def do(self, work: Work) -> Result:
        """Agreement of neighbouring atoms and purity of labels; of seed 0 also a map."""
        import torch

        from zoo.analysis.atom_kinds import atom_kinds

        rows, task = work[self.learned.rows], self.learned
        if rows["tokens"] is None:
            raise ZooError("the tokens of the rows are not known; give --tokens")
        at, data = len(task.penalties) // 2, task.data(rows)
        atoms = torch.from_numpy(work[task]["atoms"][at])
        return atom_kinds(data.W_E, data.held_out, atoms, task.penalties[at], rows["tokens"], task.seed == 0)


@dataclass(frozen=True)
class AtomNeighbours(StudyOfDictionaries, StudyOfStructure):
    """Dictionaries' atoms are labelled by the kind of token that uses them, and compared with those of a null model."""

    @cached_property
    def _atoms(self) -> dict[str, list[KindsOfAtoms]]:
        return {matrix: [KindsOfAtoms(task) for task in self.learn(matrix)] for matrix in MATRICES}

    def tasks(self) -> Sequence[Task]:
        """The atoms of the embedding and of its null model, and the search in the rows."""
        return [*(task for tasks in self._atoms.values() for task in tasks), *self.search()]

    def report(self, results: Results) -> Report:
        """Agreement of neighbours in the embedding and in its null model."""
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
            ["agreement of an atom's 5 nearest atoms beyond chance (kappa)", *told["kappa"].values(), f"{p:.2g}"],
            ["purity of the 10 tokens that use an atom most", *told["purity"].values(), f"{of_purity:.2g}"],
        ]
        if rows:
            middle = f"{np.mean(in_null):.3f} (most of {len(in_null)} draws: {max(in_null):.3f})"
            p_value = f"{rows['p_value']:.2g} (labels permuted)"
            lines.append(["the same agreement of rows", rows["kappa"], middle, p_value])
        bars = [
            Series.of(name, list(told), [of[matrix] for of in told.values()], "bars")
            for matrix, name in MATRICES.items()
        ]
        more = "more" if p <= ALPHA else "not clearly more"
        kappa = told["kappa"]
        section = Section(
            self.name,
            "Are atoms of one kind of token near each other?",
            f"In all dimensions, neighbouring atoms carry the same kind of token {more} often than on Gaussian rows: "
            f"beyond chance {kappa['embedding']} against {kappa['covariance-matched']} (p {p:.2g}, uncorrected).",
            tables=[Table(["", "embedding", "covariance-matched", "p, one draw of the null model as high"], lines)],
            charts=[
                *(_map(matrix, found[matrix][0]) for matrix in MATRICES),
                Chart(
                    f"{self.name}-agreement",
                    "Agreement in all dimensions",
                    bars,
                    "",
                    "kappa; share",
                    caption="Whiskers: 95 %.",
                ),
            ],
            null_models="Atoms learned on covariance-matched Gaussian rows whose tokens keep their names. "
            + told_of_tests(searched),
            not_shown=(
                "That kinds of token are clusters. Kinds are read off the spelling (word, continuation, number, ...), "
                "and the embedding may be organised by something else. Nothing is judged on the maps."
            ),
            numbers={**told, "p_value": p, "rows": rows, "rows_of_null_models": in_null},
        )
        certainty = f"Brackets are 95 % intervals over {self.seeds} dictionaries; the p-value is of one comparison."
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
        f"Atoms of the {MATRICES[matrix]}, by {method}",
        series,
        map=True,
        caption="Every point is an atom, coloured by the kind of most of the tokens that use it most; point at it to "
        "read them. Islands on such a map are no evidence: a Gaussian's has them too.",
    )
