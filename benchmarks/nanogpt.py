"""Reimplementation of a GPT-2 as nanoGPT trains it, with which the zoo's GPT-2 is compared.

It uses `nn.Linear`, pads the vocabulary to a multiple of 64 rows, has no dropout, and computes the cross-entropy inside
the network, so that torch.compile includes it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.up, self.down = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream after the layer, (B, T, D), given that before it, (B, T, D)."""
        B, T, D = x.shape
        heads = [
            part.view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)
            for part in self.qkv(self.norm_1(x)).split(D, dim=2)
        ]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).contiguous().view(B, T, D))
        return x + self.down(self.gelu(self.up(self.norm_2(x))))


class NanoGPT(nn.Module):
    """A GPT-2 with tied embeddings. Its forward pass returns the loss."""

    def __init__(self, vocab_size: int, context_length: int, d_model: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(-(-vocab_size // 64) * 64, d_model)
        self.positions = nn.Embedding(context_length, d_model)
        self.layers = nn.ModuleList(Layer(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, self.tokens.num_embeddings, bias=False)
        self.tokens.weight = self.head.weight
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, input_ids: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the targets, in nats, (). Both arguments are (B, T) int64."""
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    def optimizer(self, learning_rate: float = 6e-4, weight_decay: float = 0.1) -> torch.optim.AdamW:
        """Return fused AdamW with weight decay of matrices only."""
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)
