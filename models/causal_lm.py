"""Any causal language model of `transformers`, with its activations readable and editable at named sites."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.hugging_face import one_line
from zoo.interventions import Edit, edited, hook_name, rescaled
from zoo.models.decoder_layers import (
    DecoderLayer,
    Writer,
    centres,
    close,
    find_final_norm,
    find_layers,
    first_tensor,
    input_of,
    is_norm,
    with_first,
    with_input,
)
from zoo.precision import HALF
from zoo.source_files import only_rows

N_TOKENS = 5  # tokens on which a network is run to find its layers
SCALES = ("ln1.hook_scale", "ln2.hook_scale")
CONTEXT_LENGTHS = ("max_position_embeddings", "max_seq_len")  # names of the context length in configs
FINAL_SCALE = "ln_final.hook_scale"


class Norm(NamedTuple):
    """A layer norm, whether it subtracts the mean, and the number `eps` that it adds to the mean square."""

    module: nn.Module
    centred: bool
    eps: float


class CausalLM(nn.Module):
    """A causal language model of `transformers`, which runs with edits at named sites (see `zoo.interventions`).

    Its decoder layers, and the modules in them that read the residual stream and add to it, are found by running the
    network, not by their names. The residual stream before and after every layer is always a site. The inputs and
    outputs of attention and MLP, and the scales of layer norms, are sites if they are found.

    Args:
        model: The network, as `AutoModelForCausalLM` makes it. It is put into eval mode, without gradients of the
            weights, and keeps its precision.
        name: Its name, for messages.

    Attributes:
        sites: Names of its sites.
        context_length: Largest number of tokens of a text, None if there is no limit.

    Raises:
        ZooError: If it is not causal, or has no chain of decoder layers, each of which reads what the one before
            returned.
    """

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.model, self.name = model.eval().requires_grad_(False), name
        model.config.return_dict = True
        config = model.config.get_text_config()
        lengths = (getattr(config, name, None) for name in CONTEXT_LENGTHS)
        self.context_length: int | None = next((n for n in lengths if isinstance(n, int)), None)
        try:
            self._try()
        except Exception as error:
            raise ZooError(f"{name} cannot be run on token ids: {one_line(error)}; {only_rows(name)}") from error
        self._layers = find_layers(model, self._try)
        if not self._layers:
            raise ZooError(f"{name} has no chain of decoder layers; {only_rows(name)}")
        if not (self._is_causal() and all(layer.is_causal for layer in self._layers)):
            raise ZooError(
                f"{name} ({config.model_type}) is not causal: its logits depend on later tokens; {only_rows(name)}"
            )
        stream = torch.randn(2, self._stream_width(), generator=torch.Generator().manual_seed(0)).to(self.W_E)
        self._norms = [_norms(layer, stream) for layer in self._layers]
        final = find_final_norm(model, self._layers, self._try)
        self._final_norm = None if final is None else _norm(final, stream)
        self._keep_what_adds_up()
        names = [hook_name(index, site) for index in range(self.n_layers) for site in self._sites_of(index)]
        self.sites: list[str] = [*names, *([FINAL_SCALE] if self._final_norm else [])]

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration in `transformers`, without names of files and versions."""
        entries: dict[str, Any] = json.loads(self.model.config.to_json_string(use_diff=False))
        return {key: value for key, value in entries.items() if key[0] != "_" and key != "transformers_version"}

    @property
    def n_layers(self) -> int:
        """Number of decoder layers L."""
        return len(self._layers)

    @property
    def W_E(self) -> Tensor:
        """The token embedding as it is stored, (V, D), one row per token."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the next-token logits, (B, T) int64 -> (B, T, V)."""
        return self.run(input_ids)

    def run(
        self, input_ids: Tensor, edits: Mapping[str, Edit] | None = None, start: tuple[int, Tensor] | None = None
    ) -> Tensor:
        """Return the logits with edited activations, (B, T) -> (B, T, V); see `zoo.protocols.LanguageModel`.

        Raises:
            ZooError: If the text is longer than the context of the model.
        """
        edits, T = edits or {}, input_ids.shape[1]
        if self.context_length is not None and self.context_length < T:
            raise ZooError(
                f"the input has {T} tokens, more than the context length {self.context_length} of {self.name}"
            )
        first, resid = start or (0, None)
        with ExitStack() as stack:
            hooks = _Hooks(stack, input_ids.shape)
            if resid is not None:
                hooks.begin_with(self._layers, first, resid)
            for index in range(first, self.n_layers):
                here = {
                    site: edits[name] for site in self._sites_of(index) if (name := hook_name(index, site)) in edits
                }
                if here:
                    hooks.edit(self._layers[index], self._norms[index], here)
            if self._final_norm and FINAL_SCALE in edits:
                hooks.edit_scale(self._final_norm, edits[FINAL_SCALE])
            logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits

    def untrained(self) -> "CausalLM":
        """Return a network of the same configuration with random weights, as `transformers` initialises them."""
        return CausalLM(type(self.model)(copy.deepcopy(self.model.config)), f"{self.name}, untrained")

    def _sites_of(self, index: int) -> list[str]:
        """Return the names of a layer's sites within the layer, in the order of the computation."""
        layer, scales = self._layers[index], list(self._norms[index])
        if not layer.attn:
            return ["resid_pre", "resid_post"]
        if not layer.mid_reads:
            return ["resid_pre", "layer_in", *scales, "attn_out", "mlp_out", "resid_post"]
        before, after = ([s] if s in scales else [] for s in SCALES)
        return ["resid_pre", "attn_in", *before, "attn_out", "resid_mid", "mlp_in", *after, "mlp_out", "resid_post"]

    def _try(self, last: int = N_TOKENS - 1) -> Tensor:
        """Run the network on a few tokens, of which the last can be chosen, and return its logits."""
        ids = torch.tensor([[*range(N_TOKENS - 1), last]], device=self.W_E.device) % len(self.W_E)
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    def _is_causal(self) -> bool:
        return close(self._try(0)[:, :-1], self._try(len(self.W_E) - 1)[:, :-1])

    def _stream_width(self) -> int:
        found: list[int] = []
        hook = self._layers[0].module.register_forward_pre_hook(
            lambda _, args, kwargs: found.append(_width(input_of(args, kwargs))), with_kwargs=True
        )
        self._try()
        hook.remove()
        return found[0]

    @torch.no_grad()
    def _keep_what_adds_up(self) -> None:
        """Remove all sites but the residual stream from layers whose output is not the sum of stream and sublayers.

        The check edits what the sublayers read. Then the stream before the layer plus what they add must still be the
        stream after it.
        """
        ids = torch.arange(N_TOKENS, device=self.W_E.device)[None] % len(self.W_E)
        found = dict[str, Tensor]()

        def keep(name: str, is_read: bool) -> Edit:
            def edit(x: Tensor) -> Tensor:
                found[name] = x
                return x.flip(-1) if is_read else x

            return edit

        sites = [(hook_name(i, site), site) for i in range(self.n_layers) for site in self._sites_of(i)]
        self.run(ids, {name: keep(name, site.endswith("_in")) for name, site in sites if "scale" not in site})
        for index, layer in enumerate(self._layers):
            x = {site: found[hook_name(index, site)] for site in self._sites_of(index) if "scale" not in site}
            if layer.mid_reads:
                adds = close(x["resid_pre"] + x["attn_out"], x["mlp_in"])
                adds = adds and close(x["mlp_in"] + x["mlp_out"], x["resid_post"])
            else:
                adds = not layer.attn or close(x["resid_pre"] + x["attn_out"] + x["mlp_out"], x["resid_post"])
            if not adds:
                self._layers[index], self._norms[index] = DecoderLayer(layer.module, layer.n_outputs), {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Change device or precision; buffers, such as the frequencies of rotary embeddings, keep their precision."""
        before = {id(m): dict(m._buffers) for m in self.modules()}
        super()._apply(fn, recurse)
        for module in self.modules():
            for name, buffer in module._buffers.items():
                old = before[id(module)].get(name)
                if buffer is not None and old is not None and buffer.dtype in HALF and old.dtype not in HALF:
                    module._buffers[name] = old.to(buffer.device)
        return self


class _Hooks:
    """Hooks of one forward pass, which are removed when the stack is closed.

    Args:
        stack: The stack that removes them.
        shape: Number of texts and of tokens, (B, T).
    """

    def __init__(self, stack: ExitStack, shape: torch.Size) -> None:
        self.stack, self.shape = stack, shape

    def before(self, module: nn.Module, edit: Edit) -> None:
        """Edit the first tensor that a module is given."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            x = input_of(args, kwargs)
            new = self._edited(x, edit)
            return None if new is None else with_input(args, kwargs, new)

        self.stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, edit: Edit) -> None:
        """Edit the first tensor that a module returns."""

        def hook(_: nn.Module, args: Any, output: Any) -> Any:
            new = self._edited(first_tensor(output), edit)
            return None if new is None else with_first(output, new)

        self.stack.callback(module.register_forward_hook(hook).remove)

    def _edited(self, x: Tensor | None, edit: Edit) -> Tensor | None:
        """Return the edited tensor, or None if the edit returns what it is given. The edit gets a copy, (B, T, D)."""
        assert x is not None
        own = x.reshape(*self.shape, x.shape[-1]).clone()
        new = edit(own)
        return None if new is own else new.to(x.dtype, copy=True)  # the network may change it in place

    def begin_with(self, layers: list[DecoderLayer], first: int, resid: Tensor) -> None:
        """Let the first layers do nothing, and the next one read `resid` (B, T, D)."""
        if first == 0:
            self.before(layers[0].module, lambda _: resid)
        for index, layer in enumerate(layers[:first]):
            self.stack.enter_context(_doing_nothing(layer, resid if index == first - 1 else None))

    def edit(self, layer: DecoderLayer, norms: Mapping[str, Norm], edits: Mapping[str, Edit]) -> None:
        """Edit the sites of a layer."""
        state = dict[str, Tensor]()  # the stream, and what was read

        def resid_pre(x: Tensor) -> Tensor:
            state["stream"] = edited(x, edits, "resid_pre")
            return state["stream"]

        def reads(site: str) -> Edit:
            def edit(x: Tensor) -> Tensor:  # several modules may read the same
                if site not in state:
                    state[site] = edited(x, edits, site)
                return state[site]

            return edit

        def adds(writer: Writer, site: str) -> Edit:
            def edit(x: Tensor) -> Tensor:
                stream = state["stream"]
                own = x - stream if writer.includes_stream else x if writer.factor == 1 else x * writer.factor
                new = _unless_equal(edited(own, edits, site), own)
                after = x if writer.includes_stream and new is own else stream + new
                if site == "attn_out" and layer.mid_reads:
                    state["stream"] = _unless_equal(edited(after, edits, "resid_mid"), after)
                    if state["stream"] is not after:
                        after, new = state["stream"], state["stream"] - stream
                if new is own:
                    return x
                return after if writer.includes_stream else new / writer.factor

            return edit

        self.before(layer.module, resid_pre)
        for modules, site in ((layer.reads, "attn_in" if layer.mid_reads else "layer_in"), (layer.mid_reads, "mlp_in")):
            if site in edits:
                for module in modules:
                    self.before(module, reads(site))
        for site, norm in norms.items():
            if site in edits:
                self.edit_scale(norm, edits[site])
        if layer.attn and layer.mlp and edits.keys() & {"attn_out", "resid_mid", "mlp_out"}:
            self.after(layer.attn.module, adds(layer.attn, "attn_out"))
            self.after(layer.mlp.module, adds(layer.mlp, "mlp_out"))
        if "resid_post" in edits:
            self.after(layer.module, lambda x: edited(x, edits, "resid_post"))

    def edit_scale(self, norm: Norm, edit: Edit) -> None:
        """Edit the number by which a layer norm divides."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            x, y = input_of(args, kwargs), first_tensor(output)
            assert x is not None
            assert y is not None
            x, flat = x.reshape(*self.shape, -1), y.reshape(*self.shape, -1)
            bias = module.forward(y.new_zeros(y.shape[-1]))
            return with_first(output, rescaled(flat, x, bias, edit, norm.centred, norm.eps))

        self.stack.callback(norm.module.register_forward_hook(hook, with_kwargs=True).remove)


def _unless_equal(new: Tensor, old: Tensor) -> Tensor:
    """Return the old tensor if the new one is equal, so that no rounding error comes from a difference and a sum."""
    return old if new is old or torch.equal(new, old) else new


@contextmanager
def _doing_nothing(layer: DecoderLayer, resid: Tensor | None) -> Iterator[None]:
    """Let a layer return what it reads or, if given, `resid`, without computing anything."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        x = input_of(args, kwargs) if resid is None else resid.to(input_of(args, kwargs))
        return x if layer.n_outputs is None else (x, *[None] * (layer.n_outputs - 1))

    layer.module.forward = forward
    try:
        yield
    finally:
        del layer.module.forward


def _width(x: Tensor | None) -> int:
    assert x is not None
    return x.shape[-1]


def _norms(layer: DecoderLayer, stream: Tensor) -> dict[str, Norm]:
    """Return the layer norms that read the stream, by the names of their scales; empty if something else reads it."""
    modules = [*layer.reads, *layer.mid_reads]
    fit = all(is_norm(module, stream) for module in modules) and len(modules) <= len(SCALES)
    return {site: _norm(module, stream) for site, module in zip(SCALES, modules, strict=False)} if fit else {}


def _norm(module: nn.Module, stream: Tensor) -> Norm:
    """Return how a layer norm divides: by the root of the mean square of x plus `eps`, measured with a short x."""
    exact, x, short = copy.deepcopy(module).float(), stream.float(), 1e-2
    centred = centres(exact, x)
    x = x - x.mean(-1, keepdim=True) if centred else x
    bias = exact(torch.zeros_like(x))
    mean_square = x.square().mean(-1)
    ratio = (exact(short * x) - bias).square().sum(-1) / (exact(x) - bias).square().sum(-1)
    eps = short**2 * mean_square * (1 - ratio) / (ratio - short**2)
    return Norm(module, centred, eps.clamp(min=0).mean().item())
