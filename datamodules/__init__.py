"""Where batches come from."""

from zoo.datamodules.activations import ActivationsDataModule
from zoo.datamodules.corpora import Corpus, HubDataset, LocalFiles, StdlibCorpus
from zoo.datamodules.null_rows import (
    CovarianceMatchedRows,
    IsotropicRows,
    NullModel,
    PermutedCoordinateRows,
    PlantedRows,
)
from zoo.datamodules.rows import EmbeddingRowsDataModule
from zoo.datamodules.text import TextDataModule
from zoo.datamodules.tokenizers import HubTokenizer, TokenizerFile, TokenizerSource, TrainedBPE

__all__ = [
    "ActivationsDataModule",
    "Corpus",
    "CovarianceMatchedRows",
    "EmbeddingRowsDataModule",
    "HubDataset",
    "HubTokenizer",
    "IsotropicRows",
    "LocalFiles",
    "NullModel",
    "PermutedCoordinateRows",
    "PlantedRows",
    "StdlibCorpus",
    "TextDataModule",
    "TokenizerFile",
    "TokenizerSource",
    "TrainedBPE",
]
