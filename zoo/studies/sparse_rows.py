"""How well do autoencoders code embedding rows sparsely, and rows of null models in their place?

Every variant is trained at several sparsities on the embedding, on null models made of it, and judged on rows that were
held out. A seed names the held-out rows, the null models' draws, the initial atoms and the batches, so differences
between matrices are paired by seed. Beside them stand dictionaries that were not learned, and principal components at
the same number of bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.matrices import EXPLAINED, MATRICES, matrices
from zoo.report import Chart, Report, Section, Series, Table, Verdict
from zoo.shared_tasks.dictionaries import at_l0
from zoo.shared_tasks.rows import Rows, StudyOfRows, UntrainedRows, datamodule, opened, refuse_trivial
from zoo.study import AtLeastTwo, Result, Results, Task, Work

BASELINE_L0 = (1, 4, 8, 16, 32)
AT_L0 = 16
UNLEARNED = ("random directions", "random tokens", "most frequent tokens")


@dataclass(frozen=True)
class TrainAutoencoder(Task):
    """One autoencoder trained on one matrix, and judged."""

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
        """The rows."""
        return [self.rows]

    def seconds(self) -> float:
        """As `benchmarks.embedding_study_cost` measured it."""
        _, D = self.rows.source.shape(self.rows.step)
        return (4 + 2.7e-5 * D * self.d_sae) * self.steps / 1000

    def do(self, work: Work) -> Result:
        """Errors and L0 on rows held out and trained on, bits, and how well planted atoms came back."""
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
    """Errors of the mean alone and of matching pursuit with atoms that were not learned, on one matrix."""

    rows: Rows
    matrix: str
    seed: int
    d_sae: int
    batch_size: int
    frequency_power: float

    def needs(self) -> Sequence[Task]:
        """The rows."""
        return [self.rows]

    def seconds(self) -> float:
        """A guess."""
        return 2.0

    def do(self, work: Work) -> Result:
        """A line per kind of atoms and L0."""
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
    """Autoencoders of several variants and sparsities, on an embedding's rows and on null models.

    Args:
        d_sae: Latents, and atoms of the dictionaries that were not learned; fewer than rows.
        steps: Optimizer steps of every autoencoder.
        batch_size: Rows per batch.
        frequency_power: Rows are drawn with probability p^power of their token's frequency p.
        seeds: Autoencoders per setting.
        variants: Which autoencoders, by default all of the zoo's: TopK, BatchTopK, Matryoshka, ReLU, JumpReLU, Gated.
            Autoencoders of your own are named module.Class.
    """

    source: str = "gpt2-stdlib.learned"
    d_sae: PositiveInt = 512
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 512
    frequency_power: NonNegativeFloat = 0.0
    seeds: AtLeastTwo = 3
    variants: tuple[str, ...] | None = None
    keep_untrained: bool = True

    def check(self) -> None:
        """Refuse variants that do not exist, and too few latents."""
        if self.variants is not None:
            self._variants  # noqa: B018 - refuses unknown names
        if self.d_sae < max(BASELINE_L0):
            raise ZooError(f"d_sae is {self.d_sae}, and the study turns on up to {max(BASELINE_L0)} atoms")

    @cached_property
    def _variants(self) -> dict[str, Any]:
        """The classes that are trained, by name."""
        from zoo.models.sae.variants import variant, variants

        return variants() if self.variants is None else {name: variant(name) for name in self.variants}

    @cached_property
    def _rows(self) -> Rows:
        source = opened(self.source)
        V, D = source.shape(self.step)
        if max(BASELINE_L0) > D:
            raise ZooError(f"{self.source} has {D} dimensions, and the study turns on up to {max(BASELINE_L0)} atoms")
        refuse_trivial("d_sae", self.d_sae, V)
        runs = tuple(opened(name) for name in (self.source, *self.other_runs))
        aside = UntrainedRows(runs, self.step, self.tokens) if self.tokens or not self.keep_untrained else None
        return Rows(source, self.step, aside, self.keep_untrained)

    @cached_property
    def _present(self) -> tuple[str, ...]:
        return matrices(self.d_sae, self._rows.source.shape(self.step)[1])

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
        """By matrix, variant, level and seed."""
        shared = (self.d_sae, self.steps, self.batch_size, self.frequency_power)
        return {
            (matrix, variant, level, seed): TrainAutoencoder(self._rows, matrix, seed, variant, level, *shared)
            for seed in range(self.seeds)
            for variant, cls in self._variants.items()
            for level in cls.swept[1]
            for matrix in self._present
        }

    def tasks(self) -> Sequence[Task]:
        """One for every autoencoder, and one for every matrix and seed without."""
        return [*self._without.values(), *self._trained.values()]

    def report(self, results: Results) -> Report:
        """Errors at one L0 of every coder on every matrix."""
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
                f"and {estimates.share(null)} of that of Gaussian rows with the same covariance (difference {gap})"
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
            null_models=EXPLAINED + " Random tokens as atoms have codes by matching pursuit, which are better than an "
            "encoder's.",
            not_shown="Other sizes, longer training, and autoencoders that were tuned for these rows."
            + (
                ""
                if self.variants is None
                else " Other kinds of autoencoder: `study sparse-rows` trains all of the zoo's."
            ),
            numbers={f"at_l0_{AT_L0}": compared, "lines": lines},
        )
        subject = f"{self.source}, in {self._rows.source.shape(self.step)[1]} dimensions"
        certainty = f"Brackets are 95 % intervals over {self.seeds} seeds; one embedding was studied."
        return Report(subject, Verdict(finding, certainty, numbers=compared), [section])

    def _curve(
        self,
        lines: Sequence[dict[str, Any]],
        matrix: str,
        coder: str,
        seed: int,
        error: str = "fvu",
        sparsity: str = "l0",
    ) -> np.ndarray:
        """One seed's points (n, 2) of L0 and an error, ascending in L0."""
        chosen = [r for r in lines if (r["matrix"], r["coder"], r["seed"]) == (matrix, coder, seed)]
        return np.array(sorted((r[sparsity], r[error]) for r in chosen if error in r)).reshape(-1, 2)

    def _at(self, lines: Sequence[dict[str, Any]], matrix: str, coder: str, *of: str) -> np.ndarray:
        """An error at one L0, (seeds,)."""
        return np.array([at_l0(self._curve(lines, matrix, coder, seed, *of), AT_L0) for seed in range(self.seeds)])

    def _row(self, lines: Sequence[dict[str, Any]], label: str, coder: str, *of: str) -> list[Any]:
        cells = [self._at(lines, matrix, coder, *of) for matrix in self._present]
        return [label, *map(estimates.mean, cells), estimates.difference(cells[0], cells[1])]

    def _table(self, lines: Sequence[dict[str, Any]], title: str, n_eff: int) -> Table:
        rows = [
            *(self._row(lines, v, v) for v in self._variants),
            *(self._row(lines, f"{v} atoms, matching pursuit", v, "fvu_by_pursuit") for v in self._variants),
            *(self._row(lines, f"{name}, matching pursuit", name) for name in UNLEARNED),
        ]
        if "TopK" in self._variants:
            rows.append(self._row(lines, "principal components at TopK's bits", "TopK", "pca_fvu"))
        note = (
            f"{self.seeds} seeds; brackets are 95 % Student t intervals; those of differences ask whether one more "
            "draw of the null model could be as far from the others. Errors are interpolated in log L0, measured on "
            f"the same rows, between autoencoders; '-' means that L0 {AT_L0} lies outside of them. {self.d_sae} atoms, "
            f"{self.steps} steps of {self.batch_size} rows drawn with p^{self.frequency_power:g} (n_eff {n_eff:,}). "
            "The mean alone has FVU 1."
        )
        return Table([f"{title} at L0 {AT_L0}", *self._present, "embedding - covariance-matched"], rows, note=note)

    def _table_of_trained(self, lines: Sequence[dict[str, Any]]) -> Table:
        rows = [self._row(lines, v, v, "train_fvu", "train_l0") for v in self._variants]
        columns = [f"FVU of the rows trained on at L0 {AT_L0}", *self._present, "embedding - covariance-matched"]
        return Table(columns, rows)

    def _control(self, lines: Sequence[dict[str, Any]]) -> str:
        if "planted" not in self._present:
            return (
                f"With {self.d_sae} latents in {self._rows.source.shape(self.step)[1]} dimensions there is no "
                "positive control: planted rows need more atoms than dimensions, and an autoencoder more latents than "
                "these."
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
            "Mean cosine of the planted atoms, each matched with an atom of its own, at the sparsity that finds them "
            f"best: {', '.join(told)}."
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
            caption="Bands: 95 %. Dotted: of the embedding, by matching pursuit.",
        )

    def _series(self, lines: Sequence[dict[str, Any]], name: str, matrix: str, coder: str) -> Series:
        points = np.stack([self._curve(lines, matrix, coder, seed) for seed in range(self.seeds)])  # (seeds, points, 2)
        spans = [estimates.mean(values) for values in points[:, :, 1].T]
        style = "dotted" if coder in UNLEARNED else "line"
        return Series.of(name, points[:, :, 0].mean(0).tolist(), spans, style)  # type: ignore[arg-type]
