"""Finds the decoder layers of a transformer, and the modules in them that read the residual stream or add to it.

Names of modules are not used. The network runs on a few tokens, twice. In the first run, random matrices replace the
weights of the layers, so that different tensors have different values. In the second run, zeros replace them, so that
no sublayer adds anything: a module then reads the residual stream if it reads what the layer reads.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

N_TERMS = 8  # entries that are not 0 in a row of a random matrix
CHANGE = 0.1  # smallest change of numbers of size 1 that is not rounding
TOLERANCE = 8  # largest error of a sum of tensors, in units of their precision
NORM_TOLERANCE = 2e-3  # largest relative difference of two outputs of a layer norm, which adds a small number to x

Values = tuple[tuple[Any, ...], dict[str, Any]]  # arguments of a module
Run = Callable[[], Any]  # runs the network on a few tokens


class Writer(NamedTuple):
    """A module whose output contains what a sublayer adds to the residual stream."""

    module: nn.Module
    includes_stream: bool = False  # whether its output is the stream after the addition, as in BLOOM
    factor: float = 1.0  # number by which the output is multiplied before it is added, as in Granite


@dataclass
class DecoderLayer:
    """A decoder layer, and the modules in it that read the residual stream or add to it."""

    module: nn.Module
    n_outputs: int | None = None  # length of its output if it is a tuple
    is_causal: bool = True  # whether what it returns at a position does not depend on later ones
    reads: list[nn.Module] = field(default_factory=list)  # modules that read the stream before the layer
    mid_reads: list[nn.Module] = field(default_factory=list)  # those that read it between attention and MLP
    attn: Writer | None = None  # both are None if what they add cannot be told apart
    mlp: Writer | None = None


class Call(NamedTuple):
    """One call of a module: its arguments, and copies of the first tensor `x` in them and `y` in its output."""

    module: nn.Module
    values: Values
    x: Tensor | None
    y: Tensor | None
    n_outputs: int | None  # length of the output if it is a tuple


class Trace(NamedTuple):
    """One call of a decoder layer, and the calls of its children, in the order in which they ended."""

    layer: Call
    children: list[Call]


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating-point tensor of a module's output, or of its positional or named arguments."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else [value]
    return next((v for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)


def with_first(value: Any, new: Tensor) -> Any:
    """Return an output or arguments with `new` in place of the first floating-point tensor, in that tensor's shape."""
    old = first_tensor(value)
    assert old is not None
    new = new.reshape(old.shape)
    if isinstance(value, dict):
        return {key: new if v is old else v for key, v in value.items()}
    return new if value is old else type(value)(new if v is old else v for v in value)


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the first floating-point tensor that a module is given."""
    x = first_tensor(args)
    return first_tensor(kwargs) if x is None else x


def with_input(args: tuple[Any, ...], kwargs: dict[str, Any], new: Tensor) -> Values:
    """Return the arguments of a module with `new` in place of the first floating-point tensor."""
    return (args, with_first(kwargs, new)) if first_tensor(args) is None else (with_first(args, new), kwargs)


def is_norm(module: nn.Module, x: Tensor) -> bool:
    """Return whether a module is a layer norm: its output does not depend on the length of its input x (..., D)."""
    if list(module.children()):
        return False
    y, longer = module(x), module(4 * x)
    is_invariant = isinstance(y, Tensor) and y.shape == x.shape and _alike_as_norms(y, longer)
    return is_invariant and not _alike_as_norms(y, torch.zeros_like(y))


def centres(norm: nn.Module, x: Tensor) -> bool:
    """Return whether a layer norm subtracts the mean."""
    return _alike_as_norms(norm(x), norm(x + x.abs().mean()))


def find_layers(model: nn.Module, run: Run) -> list[DecoderLayer]:
    """Return the decoder layers of a network, with the modules that were found in them.

    Of all lists of modules in which each module reads what the one before returned, the decoder layers are the list
    with the most parameters. The result is empty if there is no such list.
    """
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)]
    with _random_weights(itertools.chain(*lists), 1.0):
        calls = _recorded([item for items in lists for item in items], run)
    chains = [items for items in lists if _is_chain([c for c in calls if any(c.module is m for m in items)], items)]
    modules = max(chains, key=lambda items: sum(p.numel() for m in items for p in m.parameters()), default=[])
    with _random_weights(modules, 1.0):
        generic = _traces(modules, run)
        zeroed = _with_zero_weights(modules, run)
        return [_found(*pair) for pair in zip(generic, zeroed, strict=True)]


def find_final_norm(model: nn.Module, layers: list[DecoderLayer], run: Run) -> nn.Module | None:
    """Return the layer norm that reads the stream after the last layer, or None if there is none."""
    inside = {id(m) for layer in layers for m in layer.module.modules()}
    outside = [m for m in model.modules() if id(m) not in inside and not list(m.children())]
    calls = _recorded([*outside, layers[-1].module], run)
    end = next(i for i, call in enumerate(calls) if call.module is layers[-1].module)
    last = calls[end].y
    readers = [c.module for c in calls[end:] if last is not None and c.module in outside and _equal(c.x, last)]
    return next((module for module in readers if last is not None and is_norm(module, last)), None)


def _found(generic: Trace, zeroed: Trace) -> DecoderLayer:
    """Return what two runs show about a layer. The first run had random weights, and the second zeros."""
    layer = DecoderLayer(generic.layer.module, generic.layer.n_outputs, is_causal=not _reads_later(generic.layer))
    before, after = generic.layer.x, generic.layer.y
    same = [a.module for a in generic.children] == [b.module for b in zeroed.children]
    if not same or not _equal(zeroed.layer.x, zeroed.layer.y):
        return layer  # what it returns is not the stream plus what its sublayers add
    reads = [c for c, zero in zip(generic.children, zeroed.children, strict=True) if _equal(zero.x, zeroed.layer.x)]
    mid_reads = [c for c in reads if not _equal(c.x, before)]
    reads = [c for c in reads if _equal(c.x, before)]
    if mid_reads and all(_equal(c.x, mid_reads[0].x) for c in mid_reads):
        middle = next(i for i, c in enumerate(generic.children) if c.module is mid_reads[0].module)
        attn = _writer(generic.children[:middle], before, mid_reads[0].x)
        mlp = _writer(generic.children[middle:], mid_reads[0].x, after)
    elif mid_reads:
        return layer
    else:
        attn, mlp = _parallel_writers(generic, reads)
    if attn and mlp and reads:
        layer.reads, layer.mid_reads = [c.module for c in reads], [c.module for c in mid_reads]
        layer.attn, layer.mlp = attn, mlp
    return layer


def _writer(calls: list[Call], before: Tensor | None, after: Tensor | None) -> Writer | None:
    """Return the last module whose output is the difference of two states of the stream, or the later state."""
    assert before is not None
    assert after is not None
    before, after = before.reshape(after.shape), after
    outputs = [(c.module, c.y.reshape(after.shape)) for c in calls if c.y is not None and c.y.numel() == after.numel()]
    for module, y in reversed(outputs):
        if close(before + y, after):
            return Writer(module)
        if torch.equal(y, after):
            return Writer(module, includes_stream=True)
    for module, y in reversed(outputs):
        factor = ((after - before) * y).sum().item() / max(y.square().sum().item(), 1e-30)
        if close(before + factor * y, after):
            return Writer(module, factor=factor)
    return None


def _parallel_writers(trace: Trace, reads: list[Call]) -> tuple[Writer | None, Writer | None]:
    """Return the modules whose outputs add up to what a layer adds: attention, which mixes positions, and the MLP."""
    before, after = trace.layer.x, trace.layer.y
    assert before is not None
    assert after is not None
    read = {id(c.module) for c in reads}
    calls = [c for c in trace.children if c.y is not None and c.y.numel() == after.numel() and id(c.module) not in read]
    for one, other in itertools.combinations(calls, 2):
        assert one.y is not None
        assert other.y is not None
        if close(before + one.y.reshape(after.shape) + other.y.reshape(after.shape), after):
            mixing = [c for c in (one, other) if _mixes_positions(c)]
            if len(mixing) == 1:
                (attn,) = mixing
                last = [_last_with(calls, c) for c in (attn, other if attn is one else one)]
                return Writer(last[0].module), Writer(last[1].module)
    return None, None


def _last_with(calls: list[Call], call: Call) -> Call:
    """Return the last call with the same output, such as that of a dropout that does nothing."""
    return [c for c in calls if _equal(c.y, call.y)][-1]


def _mixes_positions(call: Call) -> bool:
    """Return whether what a module returns at the last position depends on what it is given at the first."""
    if call.x is None:
        return False
    changed = call.x.clone()
    changed[:, 0] += changed[:, 0].abs().mean() + 1
    y = first_tensor(call.module(*with_input(*call.values, changed)[0], **with_input(*call.values, changed)[1]))
    return y is not None and call.y is not None and not _equal(y[:, -1], call.y[:, -1])


def _reads_later(call: Call) -> bool:
    """Return whether what a layer returns depends on what it is given at the last position, at any other position."""
    if call.x is None or call.y is None:
        return False
    changed = call.x.clone()
    changed[:, -1] *= -3
    args, kwargs = with_input(*call.values, changed)
    y = first_tensor(call.module(*args, **kwargs))
    return y is not None and (y - call.y)[:, :-1].abs().max().item() > CHANGE


def _is_chain(calls: list[Call], items: list[nn.Module]) -> bool:
    """Return whether each module of a list was called once, and read what the one before returned."""
    in_order = [c.module for c in calls] == items
    return in_order and all(_equal(a.y, b.x) for a, b in itertools.pairwise(calls)) and _alike(calls[0].x, calls[0].y)


def _recorded(modules: Iterable[nn.Module], run: Run) -> list[Call]:
    """Run the network and return the calls of these modules, in the order in which they ended."""
    calls: list[Call] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x, y = input_of(args, kwargs), first_tensor(output)
        n_outputs = len(output) if isinstance(output, tuple | list) else None
        x, y = (None if t is None else t.clone() for t in (x, y))
        calls.append(Call(module, (args, kwargs), x, y, n_outputs))

    with ExitStack() as stack, torch.no_grad():
        for module in modules:
            stack.callback(module.register_forward_hook(keep, with_kwargs=True).remove)
        run()
    return calls


def _traces(modules: list[nn.Module], run: Run) -> list[Trace]:
    """Run the network and return the calls of its decoder layers, and of their children that are called once."""
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(_random_stream, with_kwargs=True).remove)
        calls = _recorded([m for module in modules for m in (*module.children(), module)], run)
    traces, children = [], list[Call]()
    for call in calls:
        if any(call.module is module for module in modules):
            times = Counter(id(child.module) for child in children)
            traces.append(Trace(call, [child for child in children if times[id(child.module)] == 1]))
            children = []
        else:
            children.append(call)
    return traces


def _random_stream(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Values:
    """Give a layer random numbers of size 1 instead of the residual stream."""
    x = input_of(args, kwargs)
    assert x is not None
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return with_input(args, kwargs, noise.to(x))


def _with_zero_weights(modules: list[nn.Module], run: Run) -> list[Trace]:
    with _random_weights(modules, 0.0):
        return _traces(modules, run)


@contextmanager
def _random_weights(modules: Iterable[nn.Module], scale: float) -> Iterator[None]:
    """Let all affine maps in these modules, and all experts, act as random matrices times a number.

    A row of such a matrix has only a few entries that are not 0. To draw a full matrix would take long in a large
    network.
    """

    def instead(seed: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x, y = input_of(args, kwargs), first_tensor(output)
        if x is None or y is None or x.shape[:-1] != y.shape[:-1]:
            return None
        random = torch.Generator().manual_seed(seed)
        terms = torch.randint(x.shape[-1], (y.shape[-1], N_TERMS), generator=random)
        factors = scale * torch.randn(terms.shape, generator=random) / N_TERMS**0.5
        return with_first(output, (x.float()[..., terms.to(x.device)] * factors.to(x.device)).sum(-1).to(y.dtype))

    inside = [m for module in modules for m in module.modules()]
    maps = [m for m in inside if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    with ExitStack() as stack:
        for seed, module in enumerate(maps):
            stack.callback(module.register_forward_hook(partial(instead, seed), with_kwargs=True).remove)
        yield


def _alike(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Return whether two tensors have the same numbers in the same order; their shapes may differ."""
    return a is not None and b is not None and a.numel() == b.numel() and torch.equal(a.flatten(), b.flatten())


def _alike_as_norms(a: Tensor, b: Tensor) -> bool:
    error = max(NORM_TOLERANCE, 4 * torch.finfo(a.dtype).eps) * (1 + b.abs().max().item())
    return bool((a - b).abs().max().item() <= error)


def close(a: Tensor, b: Tensor | None) -> bool:
    """Return whether two tensors differ by rounding only."""
    if b is None or a.shape != b.shape:
        return False
    error = TOLERANCE * torch.finfo(a.dtype).eps * (1 + b.abs().max().item())
    return bool((a - b).abs().max().item() <= error)
