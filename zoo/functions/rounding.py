"""How often outputs of a map are exactly 0, and how many functions change if products are computed in bfloat16."""

from dataclasses import dataclass

from zoo.functions.maps import ParameterFunctionMap


@dataclass(frozen=True)
class Rounding:
    """What rounding does to the functions of a map.

    Args:
        n_samples: Number of functions.
        ties: Functions with an output of exactly 0 at some input, for which > and >= differ.
        ties_in_bfloat16: The same if products are computed in bfloat16.
        changed: Functions that differ between float32 and bfloat16.
        changed_values: Values of tables that differ.
    """

    n_samples: int
    ties: int
    ties_in_bfloat16: int
    changed: int
    changed_values: int


def rounding(of: ParameterFunctionMap, n_samples: int, seed: int = 0) -> Rounding | None:
    """Compare the functions of the same parameters in float32 and in bfloat16; f(x) = [output > 0] in both.

    Parameters are drawn in float32. In bfloat16, products of matrices are computed by torch's autocast.

    Args:
        of: The map.
        n_samples: Number of functions, which are in memory together.
        seed: Seed of the draws.

    Returns:
        The comparison, or None for a map whose outputs are Boolean.
    """
    import torch

    exact = of.sample(n_samples, torch.Generator().manual_seed(seed))
    if exact.dtype == torch.bool:
        return None
    with torch.autocast("cpu", torch.bfloat16):
        rounded = of.sample(n_samples, torch.Generator().manual_seed(seed))
    differs = (exact > 0) != (rounded > 0)
    ties, rounded_ties = (int((outputs == 0).any(1).sum()) for outputs in (exact, rounded))
    return Rounding(n_samples, ties, rounded_ties, int(differs.any(1).sum()), int(differs.sum()))
