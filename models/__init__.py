"""Networks, and the LightningModules that train them. Each is imported when it is first used."""

from typing import TYPE_CHECKING

from zoo import lazy

if TYPE_CHECKING:
    from zoo.models.causal_lm import CausalLM
    from zoo.models.circuits_in_depth import CircuitsInDepth
    from zoo.models.compressed_computation import CompressedComputation
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
    from zoo.models.power_superposition import PowerSuperposition
    from zoo.models.reconstruction import ReconstructionModule
    from zoo.models.sae.base import SAE
    from zoo.models.sae.matryoshka import MatryoshkaSAE
    from zoo.models.sae.penalised import GatedSAE, JumpReLUSAE, ReLUSAE
    from zoo.models.sae.top_k import BatchTopKSAE, TopKSAE
    from zoo.models.sparse_autoencoder import SparseAutoencoder
    from zoo.models.toy.circuit_net import CircuitNet
    from zoo.models.toy.compressed_net import CompressedNet
    from zoo.models.toy.gates import GateNet
    from zoo.models.toy.neurons import NeuronNet
    from zoo.models.toy.skip_bigram_head import SkipBigramHead
    from zoo.models.toy.superposition import SuperpositionNet
    from zoo.models.toy_attention import SkipBigramAttention
    from zoo.models.toy_module import ToyModule
    from zoo.models.toy_superposition import ToySuperposition
    from zoo.models.universal_gates import UniversalGates
    from zoo.models.universal_products import UniversalProducts
    from zoo.models.zoo_module import ZooModule
    from zoo.network import Network

__all__, __getattr__, __dir__ = lazy.exports(__name__, __file__)
