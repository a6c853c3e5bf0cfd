"""Selection of the latents that are on: the k largest per example, or the k B largest of a batch, without gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import all_gather, all_reduce, get_rank, get_world_size, is_initialized

from zoo.models.sae import dispatch
from zoo.precision import at_least_float32

SAMPLE = 2**14  # number of entries from which `_largest` estimates a bound
CHUNK = 512  # number of examples whose pre-activations are computed at a time, so that they stay in a CPU's cache


@torch.no_grad()
def top_k_of_affine(x: Tensor, W: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest entries of every row of x W + b.

    Args:
        x: (B, d_in).
        W: (d_in, K).
        b: (K,).
        k: Number of entries per row, at most K.

    Returns:
        Values and their indices, (B, k) each.
    """
    parts = x.split(CHUNK) if x.device.type == "cpu" else (x,)
    values, indices = zip(*(top_k(torch.addmm(b, part, W), k) for part in parts), strict=True)
    return torch.cat(values), torch.cat(indices)


def top_k(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest entries of every row (B, K), in no particular order: values and indices, (B, k) each."""
    if dispatch.by_kernels(pre.device):
        from zoo.models.sae import kernels  # slow to import

        if kernels.can_select(pre.shape[1], k, pre.dtype):
            return dispatch.by_kernel("top_k", _top_k, pre.device, pre, k)
    return _top_k(pre, k)


def _top_k(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select with torch's operators. The k largest entries lie in the k groups with the largest maxima."""
    K = pre.shape[1]
    size = _group_size(K, k)
    if size == 1:
        values, indices = pre.topk(k, sorted=False)
        return values, indices
    n_groups = K // size
    best = pre.view(-1, size, n_groups).amax(1).topk(k, sorted=False).indices  # (B, k)
    members = torch.arange(0, K, n_groups, device=pre.device).unsqueeze(1)  # group g has entries g, g + n_groups, ...
    candidates = (best.unsqueeze(1) + members).flatten(1)  # (B, size * k)
    values, places = pre.gather(1, candidates).topk(k, sorted=False)
    return values, candidates.gather(1, places)


def _group_size(K: int, k: int) -> int:
    """Return the divisor of K, below K / k, that minimises the number of entries compared: K / size + k size.

    It is 1, which means no groups, if k is more than a sixteenth of K.
    """
    if 16 * k > K:
        return 1
    return min((s for s in range(1, K // k) if K % s == 0), key=lambda s: K / s + k * s)


@torch.no_grad()
def batch_threshold(pre: Tensor, k: int) -> Tensor:
    """Return the smallest of the k B largest pre-activations in the batches of all processes, B examples in total.

    Args:
        pre: Pre-activations of this process, (its number of examples, K).
        k: Mean number of entries to keep per example.

    Returns:
        The threshold, () in the dtype of `pre`, at least float32; 0 if fewer than k B entries are positive.
    """
    pre = at_least_float32(pre)
    if not is_initialized():
        wanted = k * len(pre)
        largest = _largest(pre.flatten(), min(wanted, pre.numel()))
    else:
        sizes = torch.zeros(get_world_size(), dtype=torch.int64, device=pre.device)
        sizes[get_rank()] = len(pre)
        all_reduce(sizes)
        lengths = sizes.tolist()
        wanted = k * sum(lengths)
        kept = [min(wanted, n * pre.shape[1]) for n in lengths]
        largest = F.pad(_largest(pre.flatten(), kept[get_rank()]), (0, max(kept) - kept[get_rank()]))
        shares = [torch.empty_like(largest) for _ in lengths]
        all_gather(shares, largest.contiguous())
        largest = torch.cat([share[:n] for share, n in zip(shares, kept, strict=True)])
    if wanted >= len(largest):
        return largest.min().clamp(min=0)
    return largest.kthvalue(len(largest) - wanted + 1).values.clamp(min=0)


def _largest(flat: Tensor, n: int) -> Tensor:
    """Return the n largest entries of a vector. They are searched among the entries above a bound from a sample."""
    sample = flat[:: max(1, flat.numel() // SAMPLE)]
    share = n / flat.numel()
    share = min(1.0, share + 4 * (share / len(sample)) ** 0.5)  # with a margin of four standard errors
    candidates = flat[flat > sample.kthvalue(max(1, round((1 - share) * len(sample)))).values]
    if len(candidates) < n:
        candidates = flat
    return candidates.topk(n, sorted=False).values
