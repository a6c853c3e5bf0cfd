"""Sparse autoencoders: one class per variant, on sparse products wherever codes are sparse.

`zoo.models` exports the variants. A variant derives from `SAE` and states its `codes` and its `penalty`.
"""

from zoo.models.sae.base import SAE, Codes, Loss
from zoo.models.sae.support import Everywhere, Support, support_above, support_where

__all__ = ["SAE", "Codes", "Everywhere", "Loss", "Support", "support_above", "support_where"]
