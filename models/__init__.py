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
from zoo.models.toy.gates import GateNet
from zoo.models.toy.skip_bigram_head import SkipBigramHead
from zoo.models.toy.superposition import SuperpositionNet
from zoo.models.toy_attention import SkipBigramAttention
from zoo.models.toy_module import ToyModule
from zoo.models.toy_superposition import ToySuperposition
from zoo.models.universal_gates import UniversalGates
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
    "GateNet",
    "GatedSAE",
    "GaussianEmbedding",
    "JumpReLUSAE",
    "LowCoherenceEmbedding",
    "MatryoshkaSAE",
    "NormMatchedEmbedding",
    "PermutedEmbedding",
    "ReLUSAE",
    "ReconstructionModule",
    "SkipBigramAttention",
    "SkipBigramHead",
    "SparseAutoencoder",
    "SuperpositionNet",
    "TopKSAE",
    "ToyModule",
    "ToySuperposition",
    "UniversalGates",
    "ZooModule",
]
