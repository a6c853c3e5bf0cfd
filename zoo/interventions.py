"""Reading and editing of a language model's activations at named sites.

A site is a point of the forward pass, with TransformerLens's name for it. A layer has these sites, in the order of the
computation:

============================ ======================================================================================
`blocks.L.hook_resid_pre`    residual stream before layer L
`blocks.L.hook_attn_in`      what the attention reads, before its layer norm; an edit leaves the stream unchanged
`blocks.L.hook_attn_out`     what the attention adds to the stream
`blocks.L.hook_resid_mid`    residual stream between attention and MLP
`blocks.L.hook_mlp_in`       what the MLP reads, before its layer norm; an edit leaves the stream unchanged
`blocks.L.hook_mlp_out`      what the MLP adds to the stream
`blocks.L.hook_resid_post`   residual stream after layer L; of the last layer, it is what the unembedding reads
============================ ======================================================================================

All are (B, T, D). A layer in which attention and MLP read the same stream (as in GPT-J and Pythia) has
`blocks.L.hook_layer_in`, what both read, instead of `attn_in`, `resid_mid` and `mlp_in`; this name is the zoo's own.
The numbers by which layer norms divide are `blocks.L.ln1.hook_scale`, `blocks.L.ln2.hook_scale` and
`ln_final.hook_scale`, (B, T, 1). A layer of a `transformers` model in which the zoo cannot tell attention and MLP apart
has only `resid_pre` and `resid_post`. The attribute `sites` of a model lists the sites that it has.

The functions of this module work on every model that has what `zoo.protocols.LanguageModel` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.precision import at_least_float32

if TYPE_CHECKING:
    from zoo.protocols import LanguageModel

Edit = Callable[[Tensor], Tensor]  # from the activations of a site to those that the model uses instead


class Sublayer(NamedTuple):
    """What reads the residual stream once and then adds to it: attention, an MLP, or both of a parallel layer."""

    layer: int
    reads: str  # name of the site that it reads
    writes: tuple[str, ...]  # names of the sites that it adds to the stream
    scales: tuple[str, ...]  # names of its layer norms' scales; empty if it has no layer norm before it


def hook_name(layer: int, site: str) -> str:
    """Return the name of a site of a layer, such as "blocks.3.hook_resid_pre" for layer 3 and "resid_pre"."""
    return f"blocks.{layer}.{site}" if "." in site else f"blocks.{layer}.hook_{site}"


def layer_of(site: str) -> int:
    """Return the layer of a site "blocks.L...."."""
    return int(site.split(".")[1])


def sublayers(model: LanguageModel) -> list[Sublayer]:
    """Return the sublayers of a model, in the order in which they add to the residual stream.

    Raises:
        ZooError: If the model does not have the sites of its sublayers.
    """
    have, found = set(model.sites), []
    for layer in range(model.n_layers):
        scales = [hook_name(layer, f"{norm}.hook_scale") for norm in ("ln1", "ln2")]
        adds = [hook_name(layer, site) for site in ("attn_out", "mlp_out")]
        whole = hook_name(layer, "layer_in")
        parts = (
            [(whole, adds, scales)]
            if whole in have
            else [
                (hook_name(layer, site), [added], [scale])
                for site, added, scale in zip(("attn_in", "mlp_in"), adds, scales, strict=True)
            ]
        )
        for reads, writes, norms in parts:
            check_sites(model, [reads, *writes])
            found.append(Sublayer(layer, reads, tuple(writes), tuple(name for name in norms if name in have)))
    return found


def check_sites(model: LanguageModel, sites: Iterable[str]) -> None:
    """Refuse names of sites that a model does not have.

    Raises:
        ZooError: If a name is not that of a site; the message lists the sites of a layer.
    """
    for name in sites:
        if name not in model.sites:
            first = [site for site in model.sites if site.startswith("blocks.0.")]
            raise ZooError(
                f"the model has no site {name}; it has {', '.join(first) or 'none'}, and those of the other "
                f"{model.n_layers - 1} layers"
            )


class _AllRead(Exception):
    """Ends a forward pass whose remaining results are not needed."""


def edited(x: Tensor, edits: Mapping[str, Edit], name: str) -> Tensor:
    """Return the activations of a site after its edit, if there is one. The edit may change its argument in place."""
    return edits[name](x.clone()).to(x.dtype) if name in edits else x


def rescaled(normalised: Tensor, x: Tensor, bias: Tensor, edit: Edit, centred: bool, eps: float) -> Tensor:
    """Return the output of a layer norm that divides by an edited scale.

    The scale is sqrt(mean(x²) + eps), (B, T, 1). If the layer norm subtracts the mean, it is that of x minus its mean.

    Args:
        normalised: What the layer norm returns for x, (B, T, D).
        x: Its input, (B, T, D).
        bias: Its bias, (D,).
        edit: Function from the scale to the number that is used instead, (B, T, 1) -> (B, T, 1).
        centred: Whether the layer norm subtracts the mean. RMSNorm does not.
        eps: The number that the layer norm adds to the mean square.
    """
    exact = at_least_float32(x)
    exact = exact - exact.mean(-1, keepdim=True) if centred else exact
    scale = (exact.square().mean(-1, keepdim=True) + eps).sqrt()
    new = edit(scale.clone()).to(scale)
    changed = bias + (at_least_float32(normalised) - bias) * (scale / new)
    return torch.where(new == scale, normalised, changed.to(normalised.dtype))


@torch.no_grad()
def activations(
    model: LanguageModel, input_ids: Tensor, sites: Iterable[str], attention_mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the activations at some sites, from one forward pass that ends at the last of them.

    Args:
        model: The language model.
        input_ids: Token ids, (B, T) int64.
        sites: Names of the sites.
        attention_mask: 0 at padding and 1 at tokens, (B, T). By default there is no padding. Padding may be on the left
            or on the right; activations at padding have no meaning.

    Returns:
        Name of the site -> activations, (B, T, D) in the precision of the model.

    Raises:
        ZooError: If the model has no such site, the text is longer than its context, or a row of the mask has padding
            between tokens.
    """
    wanted, found = list(dict.fromkeys(sites)), dict[str, Tensor]()

    def read(name: str) -> Edit:
        def keep(x: Tensor) -> Tensor:
            found[name] = x
            if len(found) == len(wanted):
                raise _AllRead
            return x

        return keep

    try:
        if wanted:
            logits(model, input_ids, {name: read(name) for name in wanted}, attention_mask=attention_mask)
    except _AllRead:
        pass
    return {name: _to_original(found[name], attention_mask) for name in wanted}


def logits(
    model: LanguageModel,
    input_ids: Tensor,
    edits: Mapping[str, Edit] | None = None,
    start: tuple[int, Tensor] | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Return the logits of a forward pass with edited activations, (B, T, V).

    Args:
        model: The language model.
        input_ids: Token ids, (B, T) int64.
        edits: Name of a site -> function from the activations (B, T, D) to those that are used instead. The functions
            are called in the order of the computation.
        start: Layer l and the residual stream before it (B, T, D). Earlier layers then do not run. If l is the number
            of layers, the stream is that after the last layer.
        attention_mask: As in `activations`. The functions of `edits` then get the activations with padding moved to the
            right.

    Raises:
        ZooError: As in `activations`, or if a site to be edited lies before the start.
    """
    edits = edits or {}
    check_sites(model, edits)
    if start is not None:
        check_start(model, edits, start[0])
    if attention_mask is None:
        return model.run(input_ids, edits, start)
    moved = None if start is None else (start[0], _padding_right(start[1], attention_mask))
    return _to_original(model.run(_padding_right(input_ids, attention_mask), edits, moved), attention_mask)


def check_start(model: LanguageModel, edits: Iterable[str], layer: int) -> None:
    """Refuse a start at a layer that does not exist, and edits of sites before the start.

    Raises:
        ZooError: If there is no such layer, or a site to be edited lies before it.
    """
    if not 0 <= layer <= model.n_layers:
        raise ZooError(
            f"the start is layer {layer}; the model has {model.n_layers} layers, so it is 0 to {model.n_layers}"
        )
    for name in edits:
        if name.startswith("blocks.") and layer_of(name) < layer:
            raise ZooError(f"site {name} lies before layer {layer}, at which the run starts")


def _shifts(attention_mask: Tensor) -> Tensor:
    """Return the number of paddings at the left of every row, (B,).

    Raises:
        ZooError: If there is padding between tokens of a row.
    """
    real = attention_mask.bool()
    n_real, first = real.sum(1), real.int().argmax(1)
    position = torch.arange(real.shape[1], device=real.device)
    expected = (position >= first[:, None]) & (position < (first + n_real)[:, None])
    if not torch.equal(real, expected):
        raise ZooError("attention_mask has padding between the tokens of a row; padding must be on the left or right")
    return first


def _padding_right(x: Tensor, attention_mask: Tensor) -> Tensor:
    """Move the padding of every row to the right, which no earlier token sees in a causal model: (B, T, ...)."""
    return _rolled(x, _shifts(attention_mask))


def _to_original(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Undo `_padding_right`."""
    return x if attention_mask is None else _rolled(x, -_shifts(attention_mask))


def _rolled(x: Tensor, shifts: Tensor) -> Tensor:
    T = x.shape[1]
    index = (torch.arange(T, device=x.device) + shifts.to(x.device)[:, None]) % T  # (B, T)
    return x[torch.arange(len(x), device=x.device)[:, None], index]
