"""Which computations of sparse autoencoders Triton kernels make, and torch's own operators where there are none."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch

TRITON = importlib.util.find_spec("triton") is not None
FAILED: set[str] = set()  # kernels that do not compile or run here


def by_kernels(device: torch.device) -> bool:
    """Whether a device has kernels: they read memory less often, and rows may be of another type than sums of them."""
    return TRITON and device.type == "cuda"


def by_kernel(name: str, plain: Callable[..., Any], device: torch.device, *arguments: Any) -> Any:
    """What a function of `kernels` returns, or `plain`, which returns the same from torch's operators.

    Args:
        name: The function's name.
        plain: Takes the same arguments.
        device: Where the arguments are.
        arguments: Given to either.
    """
    if not by_kernels(device) or name in FAILED:
        return plain(*arguments)
    from zoo.models.sae import kernels  # slow to import

    try:
        return getattr(kernels, name)(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler fails with
        FAILED.add(name)
        why = str(error).strip().splitlines()[:1]
        warnings.warn(
            f"the kernel {name} does not run here ({type(error).__name__} {''.join(why)}); torch's operators compute "
            "the same, more slowly",
            stacklevel=2,
        )
        return plain(*arguments)
