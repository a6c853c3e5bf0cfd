"""Choice between Triton kernels and torch's operators for the computations of sparse autoencoders."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch

TRITON = importlib.util.find_spec("triton") is not None
FAILED: set[str] = set()  # names of kernels that have failed to compile or run in this process


def by_kernels(device: torch.device) -> bool:
    """Whether there are kernels for a device: it is a CUDA device, and Triton is installed.

    Kernels read memory less often than torch's operators. They can also sum rows of one dtype in another dtype.
    """
    return TRITON and device.type == "cuda"


def by_kernel(name: str, plain: Callable[..., Any], device: torch.device, *arguments: Any) -> Any:
    """Call a function of `kernels`, or `plain` if the device has no kernels or the kernel fails.

    Args:
        name: Name of the function in `kernels`.
        plain: Function that computes the same with torch's operators.
        device: Device of the arguments.
        arguments: Arguments of both functions.

    Returns:
        The result of the function that was called.
    """
    if not by_kernels(device) or name in FAILED:
        return plain(*arguments)
    from zoo.models.sae import kernels  # slow to import

    try:
        return getattr(kernels, name)(*arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers raise exceptions of many kinds
        FAILED.add(name)
        why = str(error).strip().splitlines()[:1]
        warnings.warn(
            f"the kernel {name} failed ({type(error).__name__} {''.join(why)}); torch's operators compute the same "
            "result, but more slowly",
            stacklevel=2,
        )
        return plain(*arguments)
