"""Networks whose sublayers are functions written in a test, with the sites that `zoo.interventions` names."""

import torch

from zoo.interventions import edited


class HandMade:
    """A language model with any functions as sublayers, which have no layer norms.

    Args:
        W_E: Embedding, (V, D).
        sublayers: Functions (B, T, D) -> (B, T, D). Two make a layer, or one if `parallel`.
        unembed: Function from the residual stream (B, T, D) to logits (B, T, V).
        parallel: Whether every layer is a parallel one. Its attention adds a third of the output, its MLP the rest.
    """

    context_length = None

    def __init__(self, W_E, sublayers, unembed, parallel=False):
        self.W_E, self.sublayers, self.unembed, self.parallel = W_E, sublayers, unembed, parallel
        self.n_layers = len(sublayers) if parallel else len(sublayers) // 2
        assert parallel or len(sublayers) % 2 == 0
        inner = ("layer_in", "attn_out", "mlp_out")
        inner = inner if parallel else ("attn_in", "attn_out", "resid_mid", "mlp_in", "mlp_out")
        self.sites = [f"blocks.{i}.hook_{s}" for i in range(self.n_layers) for s in ("resid_pre", *inner, "resid_post")]

    def run(self, input_ids, edits=None, start=None):
        """Logits, as `zoo.protocols.LanguageModel` says."""
        edits = edits or {}
        first, x = start or (0, self.W_E[input_ids])
        for layer in range(first, self.n_layers):

            def at(site, value, layer=layer):
                return edited(value, edits, f"blocks.{layer}.hook_{site}")

            x = at("resid_pre", x)
            if self.parallel:
                added = self.sublayers[layer](at("layer_in", x))
                x = x + at("attn_out", added / 3) + at("mlp_out", added - added / 3)
            else:
                attention, mlp = self.sublayers[2 * layer : 2 * layer + 2]
                x = at("resid_mid", x + at("attn_out", attention(at("attn_in", x))))
                x = x + at("mlp_out", mlp(at("mlp_in", x)))
            x = at("resid_post", x)
        return self.unembed(x)


def reads_back(s, n_sublayers, V=7, parallel=False):
    """A network in which sublayer n, and the unembedding as n = N + 1, reads only output n - s, and its documents.

    Every output has V dimensions of its own. An output is the one-hot code of the output that is read, rolled by one.
    A sublayer with n < s reads output 0. The network predicts the next token of the documents, which count upwards.

    Returns:
        The network, and windows (V, 9).
    """
    D = (n_sublayers + 1) * V
    hops = [0]

    def sublayer(n):
        read = max(0, n - s)
        hops.append(hops[read] + 1)

        def added(x):
            y = torch.zeros_like(x)
            y[..., n * V : (n + 1) * V] = x[..., read * V : (read + 1) * V].roll(1, -1)
            return y

        return added

    sublayers = [sublayer(n) for n in range(1, n_sublayers + 1)]
    last = n_sublayers + 1 - s
    W_E = torch.zeros(V, D)
    W_E[:, :V] = torch.eye(V)
    network = HandMade(W_E, sublayers, lambda x: 10 * x[..., last * V : (last + 1) * V], parallel)
    step = hops[last] or V
    return network, (torch.arange(V)[:, None] + step * torch.arange(9)) % V
