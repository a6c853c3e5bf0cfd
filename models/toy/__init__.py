"""Small networks with known correct outputs: superposition, and computation in superposition."""

from typing import TYPE_CHECKING

from zoo import lazy

if TYPE_CHECKING:
    from zoo.models.toy.attention import CircleAttention, own_token_accuracy, projected_tokens, two_feature_failure
    from zoo.models.toy.gates import GateNet
    from zoo.models.toy.gaussian_signs import kappa, mean_abs_times_signs
    from zoo.models.toy.readoffs import affine_readoff, explicit_readoff, least_squares_readoff, rms_error_of_00
    from zoo.models.toy.skip_bigram_head import SkipBigramHead, score_noise, skip_bigram_weights, usable_pairs
    from zoo.models.toy.superposition import SuperpositionNet, one_sparse_loss

HOMES = {
    "CircleAttention": "zoo.models.toy.attention",
    "GateNet": "zoo.models.toy.gates",
    "SkipBigramHead": "zoo.models.toy.skip_bigram_head",
    "SuperpositionNet": "zoo.models.toy.superposition",
    "affine_readoff": "zoo.models.toy.readoffs",
    "explicit_readoff": "zoo.models.toy.readoffs",
    "kappa": "zoo.models.toy.gaussian_signs",
    "least_squares_readoff": "zoo.models.toy.readoffs",
    "mean_abs_times_signs": "zoo.models.toy.gaussian_signs",
    "one_sparse_loss": "zoo.models.toy.superposition",
    "own_token_accuracy": "zoo.models.toy.attention",
    "projected_tokens": "zoo.models.toy.attention",
    "rms_error_of_00": "zoo.models.toy.readoffs",
    "score_noise": "zoo.models.toy.skip_bigram_head",
    "skip_bigram_weights": "zoo.models.toy.skip_bigram_head",
    "two_feature_failure": "zoo.models.toy.attention",
    "usable_pairs": "zoo.models.toy.skip_bigram_head",
}
__all__, __getattr__, __dir__ = lazy.exports(__name__, HOMES)
