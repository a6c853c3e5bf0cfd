"""What is trained: networks, and the LightningModules around them."""

from zoo.models.dictionary import Dictionary
from zoo.models.dictionary_learning import DictionaryLearning
from zoo.models.embeddings import (
    CopiedEmbedding,
    CovarianceMatchedEmbedding,
    Embedding,
    GaussianEmbedding,
    LowCoherenceEmbedding,
    NormMatchedEmbedding,
    PermutedEmbedding,
)
from zoo.models.frozen_embedding_gpt2 import FrozenEmbeddingGPT2
from zoo.models.gpt2 import GPT2
from zoo.models.optimizers import AdamLinear, AdamWCosine
from zoo.models.reconstruction import ReconstructionModule
from zoo.models.sae import SAE, BatchTopKSAE, GatedSAE, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, TopKSAE
from zoo.models.sparse_autoencoder import SparseAutoencoder
from zoo.models.toy.superposition import SuperpositionNet
from zoo.models.toy_module import ToyModule
from zoo.models.toy_superposition import ToySuperposition
from zoo.models.zoo_module import ZooModule

__all__ = [
    "GPT2",
    "SAE",
    "AdamLinear",
    "AdamWCosine",
    "BatchTopKSAE",
    "CopiedEmbedding",
    "CovarianceMatchedEmbedding",
    "Dictionary",
    "DictionaryLearning",
    "Embedding",
    "FrozenEmbeddingGPT2",
    "GatedSAE",
    "GaussianEmbedding",
    "JumpReLUSAE",
    "LowCoherenceEmbedding",
    "MatryoshkaSAE",
    "NormMatchedEmbedding",
    "PermutedEmbedding",
    "ReLUSAE",
    "ReconstructionModule",
    "SparseAutoencoder",
    "SuperpositionNet",
    "TopKSAE",
    "ToyModule",
    "ToySuperposition",
    "ZooModule",
]
