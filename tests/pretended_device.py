"""A device that is not there: mistakes between two devices are found on a machine that has one."""

import traceback
from typing import Any

import torch
from torch import Tensor, is_tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

DEVICE, CPU = torch.device("cuda", 0), torch.device("cpu")
INDEXING = (Tensor.__getitem__, Tensor.__setitem__, torch.ops.aten.index.Tensor)
ACROSS = (Tensor.copy_, Tensor.set_)  # which may read another device

WAITING = (  # for the device to have done all that it was asked for
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__),
    *(Tensor.nonzero, torch.nonzero, Tensor.masked_select, torch.masked_select, Tensor.unique, torch.unique),
    *(Tensor.bincount, torch.bincount, Tensor.equal, torch.equal, Tensor.allclose, torch.allclose, torch.argwhere),
    *(Tensor.argwhere, Tensor.__contains__, torch.where),
)
ABOUT_NO_VALUES = (torch._C._nn._parse_to, torch._has_compatible_shallow_copy_type)


class PretendedDevice(TorchFunctionMode):
    """Keeps account of which tensors would be on `DEVICE`, while all are on the CPU, and refuses what a GPU refuses.

    It sees the calls of Python code that `TorchFunctionMode` sees. A tensor goes with every device if its origin is not
    seen: gradients, what an `autograd.Function` has saved, and what `torch.from_numpy` returns, which tests replace by
    `torch.as_tensor`. As on a GPU, a number without dimensions and the indices of `x[...]` may be on the CPU.

    It does not see:

    - calls by autograd, by torch's C++ code, by Triton's kernels and in compiled code;
    - branches that a small test does not take, such as those for large or dense data;
    - that a kernel is missing on the device, or gives another result there;
    - memory, streams, and copies that do not wait;
    - processes: there is one device.

    `waits` lists the calls for which a GPU would be waited for, each with the line it comes from: what brings values or
    shapes to the CPU, copies there included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known = WeakTensorKeyDictionary()
        self.waits: list[str] = []

    def device_of(self, x: Tensor) -> torch.device | None:
        """Where a tensor would be, None if that is not known."""
        return self.known.get(x, CPU if isinstance(x, nn.Parameter) else None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in ABOUT_NO_VALUES:
            return func(*args, **kwargs)
        if func == Tensor.device.__get__:
            return self.device_of(args[0]) or DEVICE
        if func in (Tensor.is_cuda.__get__, Tensor.is_cpu.__get__):
            return ((self.device_of(args[0]) or DEVICE).type == "cuda") == (func == Tensor.is_cuda.__get__)
        if func in WAITING and self.device_of(args[0]) == DEVICE and (func is not torch.where or len(args) == 1):
            self._wait(func)
        if func in INDEXING and any(i.dtype == torch.bool and i.ndim for i in tree_leaves(args[1]) if is_tensor(i)):
            self._wait(func)
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args, kwargs)
        if func == Tensor.data.__set__:
            self.known[args[0]] = self.device_of(args[1]) or DEVICE
            return func(*args)
        if func in (Tensor.numpy, Tensor.__array__) and self.device_of(args[0]) == DEVICE:
            raise TypeError("a tensor on the device is not an array")
        asked = kwargs.pop("device", None)
        args, kwargs = (tree_map_only(torch.device, lambda d: CPU, each) for each in (args, kwargs))
        found = torch.device(asked) if asked is not None else self._common(func, args, kwargs)
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and found is not None:
                self.known[tensor] = DEVICE if found.type == "cuda" else CPU
        return out

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        x, dtype = args[0], None
        device: torch.device | None = {Tensor.cpu: CPU, Tensor.cuda: DEVICE}.get(func)
        copy = kwargs.pop("copy", False)
        if func is Tensor.to:
            other = next((a for a in (*args[1:], *kwargs.values()) if isinstance(a, Tensor)), None)
            device, dtype = torch._C._nn._parse_to(*args[1:], **kwargs)[:2]
            device = device if other is None else self.device_of(other)
        before = self.device_of(x)
        device = before if device is None else DEVICE if device.type == "cuda" else CPU
        out = x.to(dtype or x.dtype, copy=copy or device != before)
        if device is not None:
            self.known[out] = device
        if (before, device) == (DEVICE, CPU):
            self._wait(func)
        return out

    def _wait(self, func: Any) -> None:
        frame = next(f for f in reversed(traceback.extract_stack()) if f.filename != __file__)
        self.waits.append(f"{func.__name__} at {frame.filename}:{frame.lineno}: {frame.line}")

    def _common(self, func: Any, args: Any, kwargs: Any) -> torch.device | None:
        """The device of a call's tensors; that of a call without tensors is the CPU."""
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not tensors:
            return CPU
        first = self.device_of(tensors[0])
        if func in ACROSS:
            return first
        known = {id(t): self.device_of(t) for t in tensors}
        may_be_cpu = [t for t in tensors if t.ndim == 0]
        if func in INDEXING and first == DEVICE:
            may_be_cpu += tree_leaves(args[1])
        strict = {known[id(t)] for t in tensors if not any(t is other for other in may_be_cpu)} - {None}
        loose = {known[id(t)] for t in tensors} - {None}
        if len(strict) > 1 or (strict == {CPU} and DEVICE in loose):
            name = getattr(func, "__name__", func)
            devices = [f"{tuple(t.shape)} on {known[id(t)]}" for t in tensors]
            raise RuntimeError(f"{name} of tensors on different devices: {', '.join(devices)}")
        return next(iter(strict or loose), None)
