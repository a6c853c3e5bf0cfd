"""Sparse autoencoders, one class per variant. Where codes are sparse, products with them are computed sparsely.

`zoo.models` exports the variants. A variant is a subclass of `SAE` that defines `codes` and, if it has one, `penalty`.
"""

from zoo.models.sae.base import SAE, Codes, Loss
from zoo.models.sae.support import Everywhere, Support, support_above, support_where

__all__ = ["SAE", "Codes", "Everywhere", "Loss", "Support", "support_above", "support_where"]
