"""At which noise and sparsity does basis pursuit find the atoms that rows are made of?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jsonargparse.typing import PositiveFloat, PositiveInt

from zoo import estimates
from zoo.errors import ZooError
from zoo.report import Chart, Report, Section, Series, Style, Table, Verdict
from zoo.study import AtLeastTwo, Result, Results, Study, Task, Work

MOST = dict.fromkeys(("recovered", "cosine", "cosine_of_rows"), 1.0)  # upper bounds of these results
FOUND = 0.9  # cosine above which an atom counts as found
COLUMNS = {
    "recovered": "share of atoms found",
    "cosine": "mean best |cosine|",
    "cosine_of_rows": "mean best |cosine|, random rows",
    "fvu": "held-out FVU",
    "train_fvu": "FVU of rows trained on",
    "floor": "held-out FVU, true atoms",
}


@dataclass(frozen=True)
class RecoverAtoms(Task):
    """Generate rows from random atoms, learn a dictionary of the rows, and compare its atoms with the true ones."""

    n_rows: int
    d_in: int
    n_atoms: int
    sparsity: int
    noise: float
    penalty: float
    dictionary_steps: int
    seed: int

    def seconds(self) -> float:
        """Return an estimate from the time of 30 codings of 10,000 rows in 128 dimensions."""
        return 3 + 9 * (self.n_rows / 10_000) * (self.d_in / 128) ** 2 * (self.dictionary_steps / 30)

    def do(self, work: Work) -> Result:
        """Return shares, cosines and errors under the keys of `COLUMNS`."""
        import lightning as L
        import torch
        import torch.nn.functional as F

        from zoo.datamodules import EmbeddingRowsDataModule, PlantedRows
        from zoo.metrics import FVU, mean_max_cosine
        from zoo.models import DictionaryLearning
        from zoo.models.sparse_coding import orthogonal_matching_pursuit
        from zoo.quiet_fit import fit

        def fvu(x: torch.Tensor, atoms: torch.Tensor) -> float:
            return FVU()(orthogonal_matching_pursuit(x, atoms, self.sparsity) @ atoms, x).item()

        L.seed_everything(self.seed, verbose=False)
        planted = PlantedRows(self.n_atoms, self.sparsity, self.noise, seed=self.seed)
        data = EmbeddingRowsDataModule(null_model=planted, n_rows=self.n_rows, d_in=self.d_in, batch_size=None)
        module = DictionaryLearning(self.n_atoms, self.penalty, self.d_in)
        fit(module, data, self.dictionary_steps)
        atoms, mean = module.net.W_dec.detach(), module.net.b_dec
        assert data.true_atoms is not None
        true = F.normalize(data.true_atoms)
        best = (true @ atoms.T).abs().amax(1)
        x = data.W_E - mean
        chosen = data.train_rows[torch.randperm(len(data.train_rows))[: self.n_atoms]]
        return {
            "fvu": fvu(x[data.held_out], atoms),
            "train_fvu": fvu(x[data.train_rows[: int(data.held_out.sum())]], atoms),
            "recovered": (best > FOUND).float().mean().item(),
            "cosine": best.mean().item(),
            "cosine_of_rows": mean_max_cosine(x[chosen], true, signed=False).item(),
            "floor": fvu(data.W_E[data.held_out], data.true_atoms),
        }


@dataclass(frozen=True)
class PlantedAtoms(Study):
    """Dictionaries are learned from rows that are sparse sums of known atoms, and compared with these atoms.

    Args:
        d_in: Number of dimensions of the rows; there are 4 times as many atoms.
        n_rows: Number of rows, a tenth of which is held out.
        sparsities: Numbers of atoms per row.
        noises: Shares of the rows' variance that are isotropic noise.
        penalty: Weight of the L1 penalty on codes, relative to the rows' rms length.
        dictionary_steps: Number of times that all rows are coded.
        seeds: Number of draws of atoms and rows.
    """

    d_in: PositiveInt = 128
    n_rows: PositiveInt = 10_000
    sparsities: tuple[PositiveInt, ...] = (4, 8, 16)
    noises: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    penalty: PositiveFloat = 0.1
    dictionary_steps: PositiveInt = 30
    seeds: AtLeastTwo = 3

    def check(self) -> None:
        """Refuse fewer dimensions than atoms per row, fewer rows than atoms, and noises outside [0, 1)."""
        if wrong := [noise for noise in self.noises if not 0 <= noise < 1]:
            raise ZooError(f"noises is {wrong[0]:g}; it must be at least 0 and below 1, a share of the variance")
        if self.d_in < max(self.sparsities) or self.n_rows <= 4 * self.d_in / 0.9:
            raise ZooError(
                f"d_in is {self.d_in} and n_rows {self.n_rows}; d_in must be at least {max(self.sparsities)}, the "
                "largest value in sparsities, and there must be more training rows (0.9 n_rows) than atoms (4 d_in)"
            )

    def tasks(self) -> Sequence[RecoverAtoms]:
        """Return one task for every sparsity, noise and seed."""
        return [task for sparsity in self.sparsities for noise in self.noises for task in self._at(sparsity, noise)]

    def _at(self, sparsity: int, noise: float) -> list[RecoverAtoms]:
        shared = (self.n_rows, self.d_in, 4 * self.d_in, sparsity, noise, self.penalty, self.dictionary_steps)
        return [RecoverAtoms(*shared, seed) for seed in range(self.seeds)]

    def report(self, results: Results) -> Report:
        """Return a report on recovered atoms and errors, by sparsity and noise."""
        found = {
            (sparsity, noise): {
                key: estimates.mean([results[task][key] for task in self._at(sparsity, noise)], 0.0, MOST.get(key))
                for key in COLUMNS
            }
            for sparsity in self.sparsities
            for noise in self.noises
        }
        rows = [[s, f"{noise:g}", *(value for value in line.values())] for (s, noise), line in found.items()]
        table = Table(["atoms per row", "noise", *COLUMNS.values()], rows)

        def chart(name: str, title: str, y_label: str, styles: Mapping[str, Style]) -> Chart:
            series = []
            for sparsity in self.sparsities:
                for key, style in styles.items():
                    spans = [found[sparsity, noise][key] for noise in self.noises]
                    series.append(Series.of(f"{sparsity} atoms per row", self.noises, spans, style))
            return Chart(f"planted-atoms-{name}", title, series, "noise, share of the variance", y_label)

        label = f"share with |cosine| > {FOUND:g}"
        charts = [chart("found", "True atoms that are found", label, {"recovered": "line"})]
        label = "mean best |cosine|; dotted: random rows"
        charts.append(
            chart(
                "cosine",
                "Similarity of true and learned atoms",
                label,
                {"cosine": "line", "cosine_of_rows": "dotted"},
            )
        )
        label = "held-out FVU; dashed: rows trained on; dotted: true atoms"
        charts.append(
            chart(
                "fvu",
                "Error of matching pursuit with the true number of atoms",
                label,
                {"fvu": "line", "train_fvu": "dashed", "floor": "dotted"},
            )
        )
        ends = (min(self.sparsities), min(self.noises)), (max(self.sparsities), max(self.noises))
        told = [
            f"{found[end]['recovered']:.0%} of the atoms if rows have {end[0]} atoms and {100 * end[1]:g} % noise"
            for end in ends
        ]
        finding = f"Basis pursuit finds {told[0]}, and {told[1]}."
        section = Section(
            self.name,
            self.question,
            finding,
            tables=[table],
            charts=charts,
            null_models="The same number of random rows instead of learned atoms; the true atoms.",
            not_shown="Other penalties, other numbers of atoms, and other distributions of the coefficients than that "
            "of `PlantedRows` are not tested.",
            numbers={"lines": [{"sparsity": s, "noise": noise, **line} for (s, noise), line in found.items()]},
        )
        subject = f"{self.n_rows:,} rows in {self.d_in} dimensions, which are sparse sums of {4 * self.d_in} atoms"
        certainty = f"Brackets are 95 % Student t intervals over {self.seeds} draws of atoms and rows."
        return Report(subject, Verdict(finding, certainty), [section])
