"""Where batches come from."""

from zoo.datamodules.corpora import Corpus, HubDataset, LocalFiles, StdlibCorpus
from zoo.datamodules.text import TextDataModule
from zoo.datamodules.tokenizers import HubTokenizer, TokenizerFile, TokenizerSource, TrainedBPE

__all__ = [
    "Corpus",
    "HubDataset",
    "HubTokenizer",
    "LocalFiles",
    "StdlibCorpus",
    "TextDataModule",
    "TokenizerFile",
    "TokenizerSource",
    "TrainedBPE",
]
