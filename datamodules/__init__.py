"""Datamodules, which make batches, and the corpora, tokenizers, null models and distributions that they take."""

from zoo.active_inputs import ActiveInputs, BernoulliActive, FixedActive
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
from zoo.datamodules.skip_bigrams import SkipBigramDataModule
from zoo.datamodules.sparse_features import SparseFeaturesDataModule
from zoo.datamodules.text import TextDataModule
from zoo.datamodules.tokenizers import HubTokenizer, TokenizerFile, TokenizerSource, TrainedBPE
from zoo.datamodules.zoo_datamodule import ZooDataModule

__all__ = [
    "ActivationsDataModule",
    "ActiveInputs",
    "BernoulliActive",
    "Corpus",
    "CovarianceMatchedRows",
    "EmbeddingRowsDataModule",
    "FixedActive",
    "HubDataset",
    "HubTokenizer",
    "IsotropicRows",
    "LocalFiles",
    "NullModel",
    "PermutedCoordinateRows",
    "PlantedRows",
    "SkipBigramDataModule",
    "SparseFeaturesDataModule",
    "StdlibCorpus",
    "TextDataModule",
    "TokenizerFile",
    "TokenizerSource",
    "TrainedBPE",
    "ZooDataModule",
]
