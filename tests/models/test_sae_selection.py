import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from zoo.models.sae.selection import batch_threshold, top_k, top_k_of_affine

SIZES = [
    *[(1, 1), (2, 1), (7, 7), (12, 5), (97, 1), (97, 3), (101, 101)],  # primes have no groups to choose from
    *[(64, 1), (64, 4), (96, 3), (1024, 1), (1024, 32), (1024, 63), (1024, 64), (1024, 1024)],
    *[(2 * 509, 7), (3 * 331, 2), (720, 11), (1536, 48), (4096, 32)],
]


def values_like(kind, B, K, seed=0):
    """Pre-activations (B, K) of some kind."""
    generator = torch.Generator().manual_seed(seed)
    pre = torch.randn(B, K, generator=generator)
    return {
        "normal": pre,
        "ties": pre.round(),
        "constant": torch.zeros(B, K),
        "all negative": -pre.abs() - 1,
        "few positive": torch.where(torch.rand(B, K, generator=generator) < 0.01, pre.abs(), -pre.abs()),
        "descending": torch.linspace(1, -1, B * K).view(B, K),
        "one row has it all": torch.cat([pre[:1].abs() + 9, pre[1:]]),
        "every second column small": pre.abs() * torch.tensor([1e-3, 1.0]).repeat(K)[:K],
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "ties", "constant", "descending"])
@pytest.mark.parametrize(("K", "k"), SIZES)
def test_top_k_is_that_of_torch(K, k, kind):
    pre = values_like(kind, 9, K)
    values, indices = top_k(pre, k)
    assert torch.equal(values.sort(descending=True).values, pre.topk(k).values)
    assert torch.equal(pre.gather(1, indices), values)
    assert (indices.sort().values.diff(dim=1) > 0).all()  # none chosen twice


@pytest.mark.parametrize("B", [0, 1, 511, 512, 1100])
@pytest.mark.parametrize(("K", "k"), [(97, 3), (256, 4), (8, 8)])
def test_top_k_of_an_affine_map_is_that_of_its_result(B, K, k):
    x, W, b = torch.randn(B, 5), torch.randn(5, K), torch.randn(K)
    values, indices = top_k_of_affine(x, W, b, k)
    pre = x @ W + b
    torch.testing.assert_close(values.sort(descending=True).values, pre.topk(k).values)
    torch.testing.assert_close(values, pre.gather(1, indices))


def threshold_by_sorting(pre, k):
    return pre.flatten().sort(descending=True).values[k * len(pre) - 1].clamp(min=0)


KINDS = [
    *["normal", "ties", "constant", "all negative", "few positive"],
    *["descending", "one row has it all", "every second column small"],
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("B", "K", "k"), [(1, 1, 1), (1, 30, 7), (40, 50, 3), (40, 50, 50), (2100, 512, 8)])
def test_batch_threshold_is_the_least_of_the_largest_positive_entries(B, K, k, kind):
    pre = values_like(kind, B, K)
    assert torch.equal(batch_threshold(pre, k), threshold_by_sorting(pre, k))


def test_batch_threshold_keeps_k_per_example_on_average():
    pre = values_like("normal", 300, 64)
    assert (pre >= batch_threshold(pre, 5)).sum() == 300 * 5


def _threshold_on_a_rank(rank, folder, kind, k):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(batch_threshold(values_like(kind, 80, 48).chunk(2)[rank], k), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("k", [1, 6, 48])
@pytest.mark.parametrize("kind", ["normal", "few positive", "descending", "one row has it all"])
def test_two_processes_agree_on_the_threshold_of_their_joint_batch(tmp_path, kind, k):
    start_processes(_threshold_on_a_rank, (tmp_path, kind, k), nprocs=2, start_method="fork")
    expected = threshold_by_sorting(values_like(kind, 80, 48), k)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [expected] * 2
