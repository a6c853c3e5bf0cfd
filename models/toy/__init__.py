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

__all__, __getattr__, __dir__ = lazy.exports(__name__, __file__)
