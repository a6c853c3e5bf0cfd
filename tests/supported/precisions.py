"""Every class in every precision of the Trainer."""

import every

from supported import Case
from zoo import models
from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.datamodules import (
    EmbeddingRowsDataModule,
    LocalFiles,
    PlantedRows,
    SkipBigramDataModule,
    SparseFeaturesDataModule,
    TextDataModule,
    TrainedBPE,
)

TITLE = "Precisions"
INTRODUCTION = (
    "The table lists the values of `--trainer.precision` for each class. A validation measures the same as in "
    "float64, up to the rounding of the precision: losses and all sums are kept in float32 or float64. On a CPU, "
    "Lightning uses `bf16-mixed` instead of `16-mixed`. `bf16-true` also stores the weights in 16 bits, and steps "
    "that are smaller than their rounding are lost, so use `bf16-mixed` for training."
)

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
D_IN = 16


def text(folder, corpus):
    """Text of 60 documents as tokens, V = 300."""
    source = LocalFiles([str(corpus)]), TrainedBPE(300)
    shape = {"context_length": 16, "batch_size": 8, "val_fraction": 0.15, "test_fraction": 0.15}
    return TextDataModule(*source, **shape, cache_dir=str(folder / "cache"))


def rows(folder, corpus):
    """Planted sparse rows."""
    return EmbeddingRowsDataModule(null_model=PlantedRows(40, 3), n_rows=400, d_in=D_IN, batch_size=100)


def features(**settings):
    """Sparse features of two seeds."""
    return lambda folder, corpus: SparseFeaturesDataModule(n_seeds=2, n_validation=512, **settings)


def sae(name, **settings):
    """A module that trains an autoencoder of that name."""
    return lambda: models.SparseAutoencoder(
        getattr(models, name)(D_IN, 40, **settings), models.AdamLinear(3e-3, warmup_steps=5), dead_after=500
    )


FAMILIES = {  # name -> module, its data
    "FrozenEmbeddingGPT2": (
        lambda: models.FrozenEmbeddingGPT2(
            300, 16, 16, 1, 2, frozen_rows="none", optimizer=models.AdamWCosine(1e-2, warmup_steps=5)
        ),
        text,
    ),
    **{variant: (sae(variant, **every.sparse(variant, {"k": 3})), rows) for variant in every.SAE_VARIANTS},
    "DictionaryLearning": (lambda: models.DictionaryLearning(40, d_in=D_IN), rows),
    "ToySuperposition": (
        lambda: models.ToySuperposition(6, 3, 2),
        features(n_features=6, active=FixedActive(1), values="uniform"),
    ),
    "UniversalGates": (
        lambda: models.UniversalGates(10, 10, d_mlp=30, n_seeds=2),
        features(n_features=10, active=FixedActive(3)),
    ),
    "CompressedComputation": (
        lambda: models.CompressedComputation(12, 6, 2),
        features(n_features=12, active=BernoulliActive(2.0), values="signed"),
    ),
    "PowerSuperposition": (lambda: models.PowerSuperposition(6, 3, 2), features(n_features=6, active=FixedActive(1))),
    "UniversalProducts": (
        lambda: models.UniversalProducts(8, 8, 20, 2),
        features(n_features=8, active=FixedActive(2), values="sign"),
    ),
    "CircuitsInDepth": (
        lambda: models.CircuitsInDepth(12, 16, 4, 2, n_seeds=2),
        features(n_features=12, active=FixedActive(2)),
    ),
    "SkipBigramAttention": (
        lambda: models.SkipBigramAttention(32, n_seeds=2),
        lambda folder, corpus: SkipBigramDataModule(2, 16, 8, n_seeds=2, n_validation=512),
    ),
}
CERTIFIED = ("bf16-true", "16-true")  # round more than certificates allow


def refusal(family, precision, command):
    """Regular expression of the error message of `fit` or `validate`; None if the command runs."""
    if precision == "16-true" and command == "fit":
        return "precision 16-true cannot train: .* use 16-mixed, bf16-mixed or 32-true"
    if family == "DictionaryLearning" and precision in CERTIFIED:
        return f"precision {precision} rounds the data .* use 32-true, 64-true or bf16-mixed"
    return None


def _answer(family):
    trains = [p for p in PRECISIONS if refusal(family, p, "fit") is None]
    judges = [p for p in PRECISIONS if p not in trains and refusal(family, p, "validate") is None]
    refused = [p for p in PRECISIONS if p not in trains + judges]
    parts = {"trains in": trains, "can only be validated and tested in": judges, "refuses": refused}
    return "; ".join(f"{what} {', '.join(names)}" for what, names in parts.items() if names)


CASES = [Case(f"`{name}`", module, _answer(name)) for name, (module, _) in FAMILIES.items()]
