"""Sparse autoencoders: one class per variant, on sparse products wherever codes are sparse."""

from zoo.models.sae.base import SAE
from zoo.models.sae.matryoshka import MatryoshkaSAE
from zoo.models.sae.penalised import GatedSAE, JumpReLUSAE, ReLUSAE
from zoo.models.sae.top_k import BatchTopKSAE, TopKSAE

__all__ = ["SAE", "BatchTopKSAE", "GatedSAE", "JumpReLUSAE", "MatryoshkaSAE", "ReLUSAE", "TopKSAE"]
