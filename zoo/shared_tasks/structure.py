"""Tasks that search an embedding and its null models for circles, binding, and neighbours of the same kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonargparse.typing import PositiveInt

from zoo.analysis.token_families import Ordered
from zoo.families_file import read_families
from zoo.matrices import PLANTED_SPARSITY, SEARCHED
from zoo.shared_tasks.rows import Rows, StudyOfRows
from zoo.study import Result, Results, Task, Work

ALPHA = 0.05  # chance of any false finding among all tests of one matrix
DRAWS_WITH_RINGS, FEWER_DRAWS_WITH_RINGS = 5, 2  # of the null model, and if there are many rows

Families = tuple[tuple[str, str, tuple[str, ...]], ...]  # name, order, members


@dataclass(frozen=True)
class SearchStructure(Task):
    """Search for all kinds of structure in rows, or in a draw of their covariance-matched null model.

    Args:
        rows: The rows.
        null: Seed of the draw; None for the rows themselves.
        families: Families to search for.
        only_if_aside: Whether to return an empty result if no rows look untrained.
    """

    rows: Rows
    null: int | None
    families: Families
    only_if_aside: bool = False

    def needs(self) -> Sequence[Task]:
        """The rows and, with `only_if_aside`, the task that finds untrained rows."""
        aside = self.rows.untrained if self.only_if_aside else None
        return [self.rows, aside] if aside else [self.rows]

    def seconds(self) -> float:
        """Return the time that `benchmarks.embedding_study_cost` measured."""
        V, D = self.rows.source.shape(self.rows.step)
        return 2 + 4e-11 * V * D * (min(V, SEARCHED) + D) + 4e-5 * D**2

    def do(self, work: Work) -> Result:
        """Return circles, rings, relations and agreement of neighbours."""
        import torch

        from zoo.analysis.structure import neighbours_of, rings, structure
        from zoo.datamodules import CovarianceMatchedRows, PlantedRows

        if self.only_if_aside and self.rows.untrained and not work[self.rows.untrained]["untrained"]:
            return {}
        rows = work[self.rows]
        W, tokens = torch.from_numpy(rows["W_E"]), rows["tokens"]
        known = {name: Ordered(order, list(members)) for name, order, members in self.families}  # type: ignore[arg-type]
        if self.null is None:
            return structure(W, tokens, known)
        with_rings = self.null < (DRAWS_WITH_RINGS if len(W) <= SEARCHED else FEWER_DRAWS_WITH_RINGS)
        found = structure(CovarianceMatchedRows(seed=self.null).rows(W), tokens, known, with_rings)
        found["superposed_rings"] = []
        if with_rings:
            superposed = PlantedRows(2 * W.shape[1], PLANTED_SPARSITY, seed=self.null).rows(W)
            found["superposed_rings"] = rings(superposed, neighbours_of(superposed))
        return found


def known_families(file: str | None) -> Families:
    """Return the families to search for, see `read_families`."""
    return tuple((name, of.order, tuple(of.members)) for name, of in read_families(file).items())


@dataclass(frozen=True)
class StudyOfStructure(StudyOfRows):
    """A study that reports a part of the search in one embedding and in draws of its null model.

    Args:
        families: YAML or JSON file with further families of tokens in a known order. The p-values of all tests are
            corrected for the number of tests, which grows with the number of families.
        null_draws: Number of draws of the covariance-matched null model that are searched in the same way.
    """

    families: str | None = None
    null_draws: PositiveInt = 20

    @cached_property
    def _searches(self) -> list[SearchStructure]:
        """Searches of the rows, and of draws of the null model."""
        known = known_families(self.families)
        return [SearchStructure(self.rows, draw, known) for draw in (None, *range(self.null_draws))]

    def search(self) -> list[SearchStructure]:
        """Return the tasks of the search."""
        return self._searches

    def searched(self, results: Results) -> dict[str, Any]:
        """Return the results for the rows and for the draws, all tests, the findings, and the rows' tokens."""
        from zoo.analysis.structure import false_findings, findings, tests

        found, *null = [results[task] for task in self._searches]
        lines = tests(found)
        return {
            "found": found,
            "null": null,
            "tests": lines,
            "findings": findings(lines, ALPHA),
            "false_findings": false_findings(null, ALPHA),
            "tokens": results[self.rows]["tokens"],
        }


def told_of_tests(searched: dict[str, Any]) -> str:
    """Return sentences about the tests of all kinds of structure: their correction, and findings in null models."""
    from zoo.analysis.structure import false_rate

    V = len(searched["tokens"] or ())
    some = f" Neighbours are those of {SEARCHED:,} random rows, among all {V:,} rows." if V > SEARCHED else ""
    return (
        f"The chance of any false finding in all tests of rows (neighbours of one kind, binding, circles) together is "
        f"at most {ALPHA:g} (Holm's correction). The same search was also made in draws of the covariance-matched null "
        f"model, whose rows keep the names of their tokens: {false_rate(searched['false_findings'])}.{some}"
    )


def one_test(searched: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Return the test of one kind and name."""
    return next(t for t in searched["tests"] if (t["kind"], t["name"]) == (kind, name))


def findings_of(searched: dict[str, Any], kind: str) -> list[str]:
    """Return the names of the findings of one kind."""
    return [line["name"] for line in searched["findings"] if line["kind"] == kind]
