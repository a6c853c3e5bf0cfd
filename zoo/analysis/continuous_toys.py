"""What is measured of trained toys that compute with real numbers."""

from typing import Any

import torch

from zoo.models import CircuitsInDepth, CompressedComputation, ToyModule, UniversalProducts
from zoo.models.toy.compressed_computation import curve_r2, one_active_loss

LOOKS_R2 = 0.9  # R² between an output's own curve and ReLU from which on it has the shape of ReLU
LOOKS_HEIGHT = 0.5  # response to an input of 1 from which on it has the height of ReLU


@torch.no_grad()
def measured(module: ToyModule) -> dict[str, Any]:
    """Return what the last validation and the weights of a toy say, for every seed.

    Returns:
        `loss` (seeds,) and the reference losses `lines`. For products and functions also `computed` (seeds,), the sum
        of R² over outputs. For functions `looks` (seeds,), see `looks_computed`, and `alone` (seeds,), the exact loss
        if one input is on, divided by the probability of an input. For products `rms` (seeds, 4), the rms errors by
        case. For circuits `depth_errors` (depth + 1, seeds).
    """
    found: dict[str, Any] = {"loss": module.seed_losses.numpy(), "lines": module.reference_losses()}
    if isinstance(module, CompressedComputation):
        found |= {"computed": module.computed.numpy(), "looks": looks_computed(module).numpy()}
        found["alone"] = _alone(module).numpy()
    if isinstance(module, UniversalProducts):
        found |= {"computed": module.computed.numpy(), "rms": module.case_errors[0]["rms"].numpy()}
    if isinstance(module, CircuitsInDepth):
        found["depth_errors"] = module.depth_errors.numpy()
    return found


@torch.no_grad()
def looks_computed(module: CompressedComputation) -> torch.Tensor:
    """Return the number of functions that seem to be computed if only an output's own input is on, (seeds,).

    Output i seems to compute ReLU(x_i) if its response to x_i alone has at least the height 1/2 at x_i = 1, and an R²
    of at least 0.9 with ReLU. What other inputs add to the output is not seen.
    """
    n, S = module.net.config["n_features"], module.n_seeds
    inputs = torch.eye(n).repeat(S, 1)
    own = torch.stack([module.outputs({"x": x})[0].diagonal(dim1=1, dim2=2) for x in (inputs, -inputs)])  # (2, S, n)
    return ((own[0] >= LOOKS_HEIGHT) & (curve_r2(own) >= LOOKS_R2)).sum(1)


def _alone(module: CompressedComputation) -> torch.Tensor:
    net, M = module.net, module.mixing_matrix()
    residual = net.config["residual"]
    W, V = (net.W_E @ net.W_in, net.W_out @ net.W_E.T) if residual else (net.W_in, net.W_out)
    return one_active_loss(W.mT.double(), V.mT.double(), None if M is None else M.double())
