"""GPT-2 with access to its residual stream; its tensors have the names and layout of Hugging Face."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.interventions import Edit, edited, hook_name, rescaled
from zoo.models.unembedded_loss import unembedded_nats
from zoo.network import Network

BLOCK_SITES = (
    *("resid_pre", "attn_in", "ln1.hook_scale", "attn_out", "resid_mid", "mlp_in", "ln2.hook_scale", "mlp_out"),
    "resid_post",
)


class Conv1D(nn.Module):
    """Affine map `x W + b`. Its `weight` is (d_in, d_out), which is the layout of the published GPT-2 checkpoints."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_in, d_out))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        y = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.c_attn = Conv1D(d_model, 3 * d_model)
        self.c_proj = Conv1D(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        B, T, D = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_heads, D // self.n_heads).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )  # (B, H, T, D / H)
        z = self.c_proj(z.transpose(1, 2).reshape(B, T, D))
        return F.dropout(z, self.dropout, self.training)


class MLP(nn.Module):
    """Two affine maps with the tanh approximation of GELU between them; GPT-2 was trained with this approximation."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.c_fc = Conv1D(d_model, 4 * d_model)
        self.c_proj = Conv1D(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    """One pre-norm transformer layer: resid_pre (B, T, D) -> resid_post (B, T, D)."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(d_model, eps=1e-5)
        self.attn = Attention(d_model, n_heads, dropout)
        self.ln_2 = nn.LayerNorm(d_model, eps=1e-5)
        self.mlp = MLP(d_model, dropout)

    def forward(self, resid_pre: Tensor) -> Tensor:
        """Add the output of attention, and then that of the MLP, to the residual stream."""
        resid_mid = resid_pre + self.attn(self.ln_1(resid_pre))
        return resid_mid + self.mlp(self.ln_2(resid_mid))

    def run(self, resid_pre: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        """Return the same with edits, by the name of the site in the layer, such as "attn_out"."""
        resid_pre = edited(resid_pre, edits, "resid_pre")
        read = edited(resid_pre, edits, "attn_in")
        added = self.attn(_normalised(self.ln_1, read, edits.get("ln1.hook_scale")))
        resid_mid = edited(resid_pre + edited(added, edits, "attn_out"), edits, "resid_mid")
        read = edited(resid_mid, edits, "mlp_in")
        added = self.mlp(_normalised(self.ln_2, read, edits.get("ln2.hook_scale")))
        return edited(resid_mid + edited(added, edits, "mlp_out"), edits, "resid_post")


def _normalised(norm: nn.LayerNorm, x: Tensor, edit: Edit | None) -> Tensor:
    """Return the layer norm of x (B, T, D), with an edited scale."""
    normalised = norm(x)
    return normalised if edit is None else rescaled(normalised, x, norm.bias, edit, centred=True, eps=norm.eps)


class _Transformer(nn.Module):
    """The whole network without the unembedding. It is a module of its own so that names start with `transformer.`."""

    def __init__(self, vocab_size: int, context_length: int, d_model: int, n_layers: int, n_heads: int, dropout: float):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, d_model)
        self.wpe = nn.Embedding(context_length, d_model)
        self.h = nn.ModuleList(Block(d_model, n_heads, dropout) for _ in range(n_layers))
        self.ln_f = nn.LayerNorm(d_model, eps=1e-5)


class GPT2(Network):
    """GPT-2 (Radford et al. 2019), `logits = model(input_ids)`.

    The state dict has the names and the layout of Hugging Face, so weights can be exchanged without conversion. The
    forward pass is the composition of three methods. Cut between two layers, it gives the residual stream::

        resid_pre = model.blocks(model.embed(input_ids), stop=layer)    # (B, T, D)
        logits = model.unembed(model.blocks(edit(resid_pre), start=layer))  # (B, T, V)

    `run` reads and edits every site of the forward pass, see `zoo.interventions`::

        logits = zoo.interventions.logits(model, input_ids, {"blocks.1.hook_mlp_out": torch.zeros_like})

    `zoo.metrics` has functions for the loss and the divergence per token::

        clean, edited = map(log_probabilities, (clean_logits, edited_logits))
        token_nats(edited, targets), token_kl(clean, edited)  # (B, T) each, in nats

    Args:
        vocab_size: Number of rows V of the embedding, one per token.
        context_length: Largest number of tokens in a sequence, which is the number of learned positions.
        d_model: Width D of the residual stream, a multiple of `n_heads`.
        n_layers: Number of transformer layers L.
        n_heads: Number of attention heads per layer.
        dropout: Dropout probability, applied at the same places as in GPT-2; 0 for no dropout.
        tied: Whether the unembedding is the same matrix as the embedding.

    Raises:
        ZooError: If a size is not positive or `d_model` is not a multiple of `n_heads`.
    """

    not_for = (
        "Writing text or code, or claims about language models at large: a network of the zoo is small and saw only "
        "the text named above."
    )

    def __init__(
        self,
        vocab_size: int = 50257,
        context_length: int = 1024,
        d_model: int = 768,
        n_layers: int = 12,
        n_heads: int = 12,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"vocab_size": vocab_size, "context_length": context_length, "d_model": d_model, "n_heads": n_heads}
        for name, size in sizes.items():
            if type(size) is not int or size < 1:
                raise ZooError(f"{name} is {size}; it must be at least 1")
        if n_layers < 0:
            raise ZooError(f"n_layers is {n_layers}; it must not be negative")
        if d_model % n_heads:
            raise ZooError(f"d_model {d_model} is not a multiple of n_heads {n_heads}")
        if not 0 <= dropout < 1:
            raise ZooError(f"dropout is {dropout}; it must be at least 0 and below 1")
        self.config: dict[str, Any] = {**sizes, "n_layers": n_layers, "dropout": dropout, "tied": tied}
        self.context_length, self.dropout, self.tied = context_length, dropout, tied
        self.transformer = _Transformer(vocab_size, context_length, d_model, n_layers, n_heads, dropout)
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)
        self._initialise(n_layers)
        if tied:
            self.lm_head.weight = self.transformer.wte.weight

    def _initialise(self, n_layers: int) -> None:
        """Initialise as GPT-2: weights N(0, 0.02²), and maps into the residual stream scaled by 1 / sqrt(2 L)."""
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, std=0.02 / (2 * n_layers) ** 0.5)
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    @property
    def W_E(self) -> Tensor:
        """The token embedding, (V, D), one row per token."""
        return self.transformer.wte.weight

    @property
    def W_U(self) -> Tensor:
        """The unembedding, (V, D), one row per token; `W_E` itself when tied."""
        return self.lm_head.weight

    def embed(self, input_ids: Tensor) -> Tensor:
        """Residual stream before layer 0: token plus position embedding, (B, T) int64 -> (B, T, D).

        Raises:
            ZooError: If T exceeds `context_length`.
        """
        T = input_ids.shape[-1]
        if self.context_length < T:
            raise ZooError(f"the input has {T} tokens, more than the context length {self.context_length}")
        resid = self.transformer.wte(input_ids) + self.transformer.wpe.weight[:T]
        return F.dropout(resid, self.dropout, self.training)

    def blocks(self, resid: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run layers `start` to `stop` - 1 (all that follow by default), (B, T, D) -> (B, T, D)."""
        for block in self.transformer.h[start:stop]:
            resid = block(resid)
        return resid

    def unembed(self, resid: Tensor) -> Tensor:
        """Final layer norm and unembedding, (B, T, D) -> logits (B, T, V)."""
        return self.lm_head(self.transformer.ln_f(resid))

    @property
    def n_layers(self) -> int:
        """Number of transformer layers L."""
        return len(self.transformer.h)

    @property
    def sites(self) -> list[str]:
        """Names of the sites that `run` can edit, in the order of the computation."""
        names = [hook_name(layer, site) for layer in range(self.n_layers) for site in BLOCK_SITES]
        return [*names, "ln_final.hook_scale"]

    def run(
        self, input_ids: Tensor, edits: Mapping[str, Edit] | None = None, start: tuple[int, Tensor] | None = None
    ) -> Tensor:
        """Return the logits with edited activations, (B, T) -> (B, T, V); see `zoo.protocols.LanguageModel`."""
        edits = edits or {}
        first, resid = start or (0, self.embed(input_ids))
        blocks: Any = self.transformer.h[first:]
        for layer, block in enumerate(blocks, first):
            here = {site: edits[name] for site in BLOCK_SITES if (name := hook_name(layer, site)) in edits}
            resid = block.run(resid, here)
        return self.lm_head(_normalised(self.transformer.ln_f, resid, edits.get("ln_final.hook_scale")))

    def forward(self, input_ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the next-token logits, (B, T) int64 -> (B, T, V), or the loss.

        With `targets`, (B, T) int64, it returns the sum of the tokens' cross-entropies instead: () in nats, at least
        float32. It then does not hold all logits in memory. Targets of -100 do not count.
        """
        resid = self.blocks(self.embed(input_ids))
        if targets is None:
            return self.unembed(resid)
        return unembedded_nats(self.transformer.ln_f(resid), self.W_U, targets)

    def residual_stream(self, input_ids: Tensor) -> Tensor:
        """Return resid_pre of every layer, then resid_post of the last one: (B, T) -> (L + 1, B, T, D)."""
        stream = [self.embed(input_ids)]
        for block in self.transformer.h:
            stream.append(block(stream[-1]))
        return torch.stack(stream)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        n_tokens: int | None = None,
    ) -> Tensor:
        """Continue sequences, (B, T) -> (B, T + max_new_tokens).

        Args:
            input_ids: Prompts, with at least one token each. The model sees only the last `context_length` tokens.
            max_new_tokens: Number of tokens to add.
            temperature: Divisor of the logits; 0 to take the most likely token.
            generator: Random number generator; by default torch's global one.
            n_tokens: Number of tokens, if some rows of the embedding belong to no token: only the first `n_tokens` rows
                are sampled. By default all rows.
        """
        for _ in range(max_new_tokens):
            logits = self(input_ids[:, -self.context_length :])[:, -1, :n_tokens]  # (B, V)
            if temperature == 0:
                token = logits.argmax(-1, keepdim=True)
            else:
                token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
            input_ids = torch.cat([input_ids, token], 1)
        return input_ids

    def hf_config(self) -> dict[str, Any]:
        """Return the entries of a Hugging Face `config.json` with which `GPT2LMHeadModel` loads these weights."""
        c = self.config
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "activation_function": "gelu_new",
            "vocab_size": c["vocab_size"],
            "n_positions": c["context_length"],
            "n_embd": c["d_model"],
            "n_layer": c["n_layers"],
            "n_head": c["n_heads"],
            "attn_pdrop": c["dropout"],
            "embd_pdrop": c["dropout"],
            "resid_pdrop": c["dropout"],
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": c["tied"],
            "bos_token_id": None,
            "eos_token_id": None,
        }
