"""What is trained: networks, and the LightningModules around them."""

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
from zoo.models.optimizers import AdamWCosine
from zoo.models.zoo_module import ZooModule

__all__ = [
    "GPT2",
    "AdamWCosine",
    "CopiedEmbedding",
    "CovarianceMatchedEmbedding",
    "Embedding",
    "FrozenEmbeddingGPT2",
    "GaussianEmbedding",
    "LowCoherenceEmbedding",
    "NormMatchedEmbedding",
    "PermutedEmbedding",
    "ZooModule",
]
