"""Metrics of reconstruction, sparsity, dictionaries, language-model loss, Boolean gates and the geometry of rows."""

from zoo.metrics.case_errors import CASES, CaseErrors
from zoo.metrics.dictionaries import (
    description_length,
    matched_cosine,
    mean_max_cosine,
    pca_rank_at_bits,
    rate_distortion_bits,
)
from zoo.metrics.drift import row_drift
from zoo.metrics.geometry import feature_dimensionality
from zoo.metrics.losses import TokenLoss
from zoo.metrics.next_token import log_probabilities, token_kl, token_nats
from zoo.metrics.reconstruction import (
    FVU,
    CosineSimilarity,
    NMSEMeanSquare,
    NMSEVariance,
    RelativeReconstructionBias,
)
from zoo.metrics.seeds import SeedMeans
from zoo.metrics.sparsity import L0, FiringFrequency, dead_share, dense_share, fires
from zoo.metrics.splicing import LossRecovered
from zoo.metrics.summary import ReconstructionMetrics

__all__ = [
    "CASES",
    "FVU",
    "L0",
    "CaseErrors",
    "CosineSimilarity",
    "FiringFrequency",
    "LossRecovered",
    "NMSEMeanSquare",
    "NMSEVariance",
    "ReconstructionMetrics",
    "RelativeReconstructionBias",
    "SeedMeans",
    "TokenLoss",
    "dead_share",
    "dense_share",
    "description_length",
    "feature_dimensionality",
    "fires",
    "log_probabilities",
    "matched_cosine",
    "mean_max_cosine",
    "pca_rank_at_bits",
    "rate_distortion_bits",
    "row_drift",
    "token_kl",
    "token_nats",
]
