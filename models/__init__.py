"""What is trained: networks, and the LightningModules around them. Each is imported when first asked for."""

from typing import TYPE_CHECKING

from zoo import lazy

if TYPE_CHECKING:
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

HOMES = {
    "AdamLinear": "zoo.models.optimizers",
    "AdamWCosine": "zoo.models.optimizers",
    "BatchTopKSAE": "zoo.models.sae",
    "CopiedEmbedding": "zoo.models.embeddings",
    "CovarianceMatchedEmbedding": "zoo.models.embeddings",
    "Dictionary": "zoo.models.dictionary",
    "DictionaryLearning": "zoo.models.dictionary_learning",
    "Embedding": "zoo.models.embeddings",
    "FrozenEmbeddingGPT2": "zoo.models.frozen_embedding_gpt2",
    "GPT2": "zoo.models.gpt2",
    "GateNet": "zoo.models.toy.gates",
    "GatedSAE": "zoo.models.sae",
    "GaussianEmbedding": "zoo.models.embeddings",
    "JumpReLUSAE": "zoo.models.sae",
    "LowCoherenceEmbedding": "zoo.models.embeddings",
    "MatryoshkaSAE": "zoo.models.sae",
    "NormMatchedEmbedding": "zoo.models.embeddings",
    "PermutedEmbedding": "zoo.models.embeddings",
    "ReLUSAE": "zoo.models.sae",
    "ReconstructionModule": "zoo.models.reconstruction",
    "SAE": "zoo.models.sae",
    "SkipBigramAttention": "zoo.models.toy_attention",
    "SkipBigramHead": "zoo.models.toy.skip_bigram_head",
    "SparseAutoencoder": "zoo.models.sparse_autoencoder",
    "SuperpositionNet": "zoo.models.toy.superposition",
    "TopKSAE": "zoo.models.sae",
    "ToyModule": "zoo.models.toy_module",
    "ToySuperposition": "zoo.models.toy_superposition",
    "UniversalGates": "zoo.models.universal_gates",
    "ZooModule": "zoo.models.zoo_module",
}
__all__, __getattr__, __dir__ = lazy.exports(__name__, HOMES)
