"""How well do autoencoders code embedding rows sparsely, compared with null models?

Every variant is trained at several sparsities on the embedding and on its null models, and evaluated on held-out rows.
A seed determines the held-out rows, the draws of the null models, the initial atoms and the batches. Baselines are
dictionaries that were not learned, and principal components with the same number of bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.matrices import MATRICES, explained, matrices
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.row_choice import RowChoice
from zoo.shared_tasks.dictionaries import at_l0
from zoo.shared_tasks.pursuit import limited
from zoo.shared_tasks.rows import Rows, StudyOfRows, UntrainedRows, datamodule, opened, refuse_trivial
from zoo.study import AtLeastTwo, Result, Results, Task, Work

BASELINE_L0 = (1, 4, 8, 16, 32)
AT_L0 = 16
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")


@dataclass(frozen=True)
class TrainAutoencoder(Task):
    """Train and evaluate one autoencoder on one matrix."""

    rows: Rows
    matrix: str
    seed: int
    variant: str
    level: float
    d_sae: int
    steps: int
    batch_size: int
    frequency_power: float

    def needs(self) -> Sequence[Task]:
        """The task that reads the rows."""
        return [self.rows]

    def seconds(self) -> float:
        """Return an estimate from measurements of `benchmarks.embedding_study_cost`."""
        _, D = self.rows.source.shape(self.rows.step)
        return (4 + 2.7e-5 * D * self.d_sae) * self.steps / 1000

    def do(self, work: Work) -> Result:
        """Return errors and L0 on held-out and on training rows, bits, and the recovery of planted atoms."""
        from zoo.analysis.autoencoders import judge, train
        from zoo.models.sae.variants import variant

        data = _data(self, work)
        cls = variant(self.variant)
        setting, levels = cls.swept
        level = type(levels[0])(self.level)  # a whole number stays one
        sae = train(data, cls, self.d_sae, {setting: level}, self.steps, self.seed)
        return {"setting": setting, "level": self.level} | judge(sae, data, self.d_sae)


@dataclass(frozen=True)
class CodeWithoutLearning(Task):
    """Compute the errors of the mean alone, and of matching pursuit with atoms that were not learned, on one matrix."""

    rows: Rows
    matrix: str
    seed: int
    d_sae: int
    batch_size: int
    frequency_power: float

    def needs(self) -> Sequence[Task]:
        """The task that reads the rows."""
        return [self.rows]

    def seconds(self) -> float:
        """Return about what it took for 49,122 rows and 2,304 atoms, scaled to other sizes."""
        return 1 + 1.4e-7 * self.rows.number * self.d_sae

    def do(self, work: Work) -> Result:
        """Return a line per kind of atoms and L0, and the effective number of training rows."""
        from zoo.analysis.autoencoders import without_learning

        data = _data(self, work)
        lines = without_learning(data, self.d_sae, self.seed, BASELINE_L0)
        return {"lines": lines, "effective_rows": data.effective_rows}


def _data(task: TrainAutoencoder | CodeWithoutLearning, work: Work) -> Any:
    settings: dict[str, Any] = {"batch_size": task.batch_size, "seed": task.seed}
    settings["frequency_power"] = task.frequency_power
    return datamodule(work[task.rows], task.matrix, task.d_sae, task.seed, **settings)


@dataclass(frozen=True)
class SparseRows(StudyOfRows):
    """Trains autoencoders of several variants and sparsities on the rows of an embedding and of null models.

    Args:
        d_sae: Number of latents, and of atoms of the dictionaries that were not learned; fewer than training rows.
        steps: Number of optimizer steps of every autoencoder.
        batch_size: Number of rows per batch.
        frequency_power: Rows are drawn with probability proportional to p^power, where p is the frequency of their
            token; 0 for equal probabilities.
        seeds: Number of autoencoders per variant, sparsity and matrix, each with another seed.
        variants: Variants of autoencoders. By default all: TopK, BatchTopK, Matryoshka, ReLU, JumpReLU, Gated. Your own
            classes are named module.Class.
        null_models: Whether to train on all null models, or only on the covariance-matched one and the planted rows.
        max_rows: Largest number of rows, held-out rows included; by default all.
        row_choice: How these rows are chosen: stratified (evenly spaced in the order of frequency, or of the rows if
            frequencies are not known), most frequent, or random.
    """

    source: str = "gpt2-stdlib.learned"
    d_sae: PositiveInt = 512
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 512
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    variants: tuple[str, ...] | None = None
    keep_untrained: bool = True
    null_models: Literal["all", "covariance-matched"] = "all"
    max_rows: PositiveInt | None = None
    row_choice: RowChoice = "stratified"

    def check(self) -> None:
        """Refuse variants that do not exist, and too few latents."""
        if self.variants is not None:
            self._variants  # noqa: B018 - refuses unknown names
        if self.d_sae < max(BASELINE_L0):
            raise ZooError(f"d_sae is {self.d_sae}, but the study uses up to {max(BASELINE_L0)} atoms per row")

    @cached_property
    def _variants(self) -> dict[str, Any]:
        """The classes that are trained, by name."""
        from zoo.models.sae.variants import variant, variants

        return variants() if self.variants is None else {name: variant(name) for name in self.variants}

    @cached_property
    def _rows(self) -> Rows:
        source = opened(self.source, self.tensor)
        V, D = source.shape(self.step)
        if max(BASELINE_L0) > D:
            raise ZooError(
                f"{self.source} has {D} dimensions, but the study uses up to {max(BASELINE_L0)} atoms per row"
            )
        refuse_trivial("d_sae", self.d_sae, min(V, self.max_rows or V))
        runs = tuple(opened(name, self.tensor) for name in (self.source, *self.other_runs))
        aside = UntrainedRows(runs, self.step, self.tokens) if self.tokens or not self.keep_untrained else None
        return limited(Rows(source, self.step, aside, self.keep_untrained), self.max_rows, self.row_choice)

    @cached_property
    def _present(self) -> tuple[str, ...]:
        present = matrices(self.d_sae, self._rows.source.shape(self.step)[1])
        return present if self.null_models == "all" else tuple(m for m in present if m in (*MATRICES[:2], "planted"))

    @cached_property
    def _without(self) -> dict[tuple[str, int], CodeWithoutLearning]:
        shared = (self.d_sae, self.batch_size, self.frequency_power)
        return {
            (m, seed): CodeWithoutLearning(self._rows, m, seed, *shared)
            for m in self._present
            for seed in range(self.seeds)
        }

    @cached_property
    def _trained(self) -> dict[tuple[str, str, float, int], TrainAutoencoder]:
        """The training tasks by matrix, variant, level of sparsity and seed."""
        shared = (self.d_sae, self.steps, self.batch_size, self.frequency_power)
        return {
            (matrix, variant, level, seed): TrainAutoencoder(self._rows, matrix, seed, variant, level, *shared)
            for seed in range(self.seeds)
            for variant, cls in self._variants.items()
            for level in cls.swept[1]
            for matrix in self._present
        }

    def tasks(self) -> Sequence[Task]:
        """Return one task per autoencoder, and one per matrix and seed without an autoencoder."""
        return [*self._without.values(), *self._trained.values()]

    def report(self, results: Results) -> Report:
        """Return a report of the errors of every coder on every matrix at one L0."""
        lines: list[dict[str, Any]] = []
        for (matrix, seed), task in self._without.items():
            lines += [{"matrix": matrix, "seed": seed} | line for line in results[task]["lines"]]
        for (matrix, variant, _, seed), trained in self._trained.items():
            lines.append({"matrix": matrix, "seed": seed, "coder": variant} | results[trained])
        n_eff = results[next(iter(self._without.values()))]["effective_rows"]
        told, compared = [], {}
        for variant in self._variants:
            real, null = (self._at(lines, m, variant) for m in MATRICES[:2])
            gap = estimates.difference(real, null)
            compared[variant] = {"embedding": estimates.share(real), "null": estimates.share(null), "difference": gap}
            told.append(
                f"a {variant} autoencoder leaves {estimates.share(real)} of the variance of held-out rows unexplained, "
                f"and {estimates.share(null)} for Gaussian rows with the same covariance (difference {gap})"
            )
        finding = f"With {AT_L0} latents on, {'; '.join(told)}."
        section = Section(
            self.name,
            self.question,
            finding,
            tables=[
                self._table(lines, "held-out FVU", round(n_eff)),
                self._table_of_trained(lines),
                self._control(lines),
            ],
            charts=[self._chart(lines, variant) for variant in self._variants],
            null_models=explained(self._present)
            + " With random tokens as atoms, codes are found by matching pursuit, which finds "
            "better codes than an encoder.",
            not_shown="The study does not test other sizes, longer training, or autoencoders tuned for these rows."
            + (
                ""
                if self.variants is None
                else " It does not test other variants of autoencoders; `study sparse-rows` trains all variants."
            ),
            numbers={f"at_l0_{AT_L0}": compared, "lines": lines},
        )
        subject = f"{self.source}, in {self._rows.source.shape(self.step)[1]} dimensions"
        certainty = f"Brackets are 95 % intervals over {self.seeds} seeds. Only one embedding was studied."
        recognised = self._control(lines)
        return Report(subject, Verdict(finding, certainty, numbers=compared, recognised=recognised), [section])

    def _curve(
        self,
        lines: Sequence[dict[str, Any]],
        matrix: str,
        coder: str,
        seed: int,
        error: str = "fvu",
        sparsity: str = "l0",
    ) -> np.ndarray:
        """Return the points (L0, error) of one seed, (n, 2), ascending in L0."""
        chosen = [r for r in lines if (r["matrix"], r["coder"], r["seed"]) == (matrix, coder, seed)]
        return np.array(sorted((r[sparsity], r[error]) for r in chosen if error in r)).reshape(-1, 2)

    def _at(self, lines: Sequence[dict[str, Any]], matrix: str, coder: str, *of: str) -> np.ndarray:
        """Return an error at L0 `AT_L0`, (seeds,)."""
        return np.array([at_l0(self._curve(lines, matrix, coder, seed, *of), AT_L0) for seed in range(self.seeds)])

    def _row(self, lines: Sequence[dict[str, Any]], label: str, coder: str, *of: str) -> list[Any]:
        cells = [self._at(lines, matrix, coder, *of) for matrix in self._present]
        return [label, *map(estimates.mean, cells), estimates.difference(cells[0], cells[1])]

    def _table(self, lines: Sequence[dict[str, Any]], title: str, n_eff: int) -> Table:
        rows = [
            *(self._row(lines, v, v) for v in self._variants),
            *(self._row(lines, f"{v} atoms, matching pursuit", v, "fvu_by_pursuit") for v in self._variants),
            *estimates.with_values(self._row(lines, f"{name}, matching pursuit", name) for name in UNLEARNED),
        ]
        if "TopK" in self._variants:
            rows.append(self._row(lines, "principal components at TopK's bits", "TopK", "pca_fvu"))
        note = (
            f"Brackets are 95 % Student t intervals over {self.seeds} seeds. Intervals of differences ask whether "
            "another draw of the null model could be as far from the other draws. Errors are interpolated between "
            "autoencoders, linearly in log L0, with the L0 of the same rows. '-' means that no autoencoders have L0 on "
            f"both sides of {AT_L0}. There are {self.d_sae} atoms, trained for {self.steps} steps of {self.batch_size} "
            f"rows. Rows are drawn with weights p^{self.frequency_power:g} for a token of frequency p. The effective "
            f"number of rows is {n_eff:,}. The mean alone has FVU 1."
        )
        columns = [f"{title} at L0 {AT_L0}", *self._present, "embedding - covariance-matched"]
        return Table(columns, rows, note=note)

    def _table_of_trained(self, lines: Sequence[dict[str, Any]]) -> Table:
        rows = [self._row(lines, v, v, "train_fvu", "train_l0") for v in self._variants]
        columns = [f"FVU on training rows at L0 {AT_L0}", *self._present, "embedding - covariance-matched"]
        return Table(columns, rows)

    def _control(self, lines: Sequence[dict[str, Any]]) -> str:
        if "planted" not in self._present:
            return (
                f"With {self.d_sae} latents in {self._rows.source.shape(self.step)[1]} dimensions there is no positive "
                "control: it requires more planted atoms than dimensions, and more latents than planted atoms."
            )
        told = []
        for variant in self._variants:
            best = [
                max(
                    r["matched_cosine"]
                    for r in lines
                    if (r["matrix"], r["coder"], r["seed"]) == ("planted", variant, s)
                )
                for s in range(self.seeds)
            ]
            told.append(f"{variant} {np.mean(best):.3f}")
        return (
            "Mean cosine between planted and learned atoms, matched one to one, at the sparsity with the largest mean: "
            f"{', '.join(told)}."
        )

    def _chart(self, lines: Sequence[dict[str, Any]], variant: str) -> Chart:
        series = [self._series(lines, matrix, matrix, variant) for matrix in self._present]
        for name in UNLEARNED[:2]:
            series.append(self._series(lines, f"{name} as atoms", "embedding", name))
        return Chart(
            f"{self.name}-{variant.lower()}",
            f"Held-out error of {variant} autoencoders",
            series,
            "L0",
            "FVU",
            log_x=True,
            caption="Bands are 95 % intervals. Dotted: errors on the embedding, with codes by matching pursuit.",
        )

    def _series(self, lines: Sequence[dict[str, Any]], name: str, matrix: str, coder: str) -> Series:
        points = np.stack([self._curve(lines, matrix, coder, seed) for seed in range(self.seeds)])  # (seeds, points, 2)
        spans = [estimates.mean(values) for values in points[:, :, 1].T]
        style = "dotted" if coder in UNLEARNED else "line"
        return Series.of(name, points[:, :, 0].mean(0).tolist(), spans, style)  # type: ignore[arg-type]
