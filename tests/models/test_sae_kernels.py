import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from zoo.models import ReLUSAE, TopKSAE
from zoo.models.sae import dispatch, gathered_rows, selection, support

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RUNS = DEVICE == "cuda" or INTERPRETED
INSTALLED = importlib.util.find_spec("triton") is not None
pytestmark = pytest.mark.skipif(not INSTALLED, reason="triton is not installed")
in_a_process_of_its_own = "run in a process of its own, in which triton was told to interpret"
by_triton = pytest.mark.skipif(INSTALLED and not RUNS, reason=in_a_process_of_its_own)


@pytest.fixture
def kernels():
    """Triton's kernels, which its interpreter runs where there is no GPU."""
    from zoo.models.sae import kernels

    return kernels


@pytest.mark.skipif(RUNS, reason="kernels run in this process")
def test_kernels_in_an_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1"}  # which triton reads when it is imported
    command = [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


PAIRS = {"index": "*i64", "starts": "*i64", "n_pairs": "i32", "n": "i32"}
TILES = {"d": 768, "CHUNK": 128, "PAIRS": 16, "COLUMNS": 256}
KERNELS = {  # kernel -> types of its arguments, where "*" is a matrix in the precision of the data; constants
    "_sums_of_chunks": ({**PAIRS, "values": "*fp32", "rows": "*", "of_chunks": "*fp32"}, TILES),
    "_weighted_sums": ({**PAIRS, "values": "*fp32", "rows": "*", "of_chunks": "*fp32", "sums": "*fp32"}, TILES),
    "_dot_products": ({**PAIRS, "left": "*fp32", "rows": "*", "products": "*fp32"}, TILES),
    "_top_k": (
        {"pre": "*", "values": "*", "indices": "*i64", "K": "i32", "k": "i32"},
        {"MEMBERS": 24, "SIZE": 32, "GROUPS": 1024, "WANTED": 32},
    ),
    "_relu_with_sums": (
        {"pre": "*", "sums": "*fp32", "counts": "*fp32", "B": "i32", "K": "i32"},
        {"ROWS_OF_A_PROGRAM": 128, "ROWS": 8, "COLUMNS": 1024},
    ),
    "_relu_backward": (
        {"grad": "*", "codes": "*", "of_sums": "*fp32", "made": "*", "B": "i32", "K": "i32"},
        {"ROWS": 8, "COLUMNS": 1024},
    ),
}


@pytest.mark.skipif(INTERPRETED, reason="triton does not compile what it was told to interpret")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_for_an_h100_that_need_not_be_there(kernels, name, precision):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel, (types, constants) = getattr(kernels, name), KERNELS[name]
    types = {n: "*" + precision if t == "*" else t for n, t in types.items()}
    constants = {n: value for n, value in constants.items() if n in kernel.arg_names}
    source = ASTSource(kernel, {n: types.get(n, "constexpr") for n in kernel.arg_names}, constants)
    assert compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def groups(sizes, m, seed=0):
    """Row, first pair and group of pairs in groups of some sizes."""
    sizes = torch.tensor(sizes)
    index = torch.randint(m, (int(sizes.sum()),), generator=torch.Generator().manual_seed(seed))
    group = torch.arange(len(sizes)).repeat_interleave(sizes)
    return index.to(DEVICE), (sizes.cumsum(0) - sizes).to(DEVICE), group.to(DEVICE)


@by_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 24, 300])
@pytest.mark.parametrize("sizes", [[3, 0, 40, 1, 0], [0, 16, 16], [5], [100, 0, 300, 1], [0, 256, 0]])
def test_kernels_add_up_and_multiply_the_rows_they_gather(kernels, sizes, d, dtype):
    index, starts, group = groups(sizes, 7)
    rows, values, left = random(7, d, dtype=dtype), random(len(index), seed=1), random(len(sizes), d, seed=2)
    gathered = rows[index].double()
    sums = torch.zeros(len(sizes), d, dtype=torch.float64, device=DEVICE)
    sums.index_add_(0, group, values.double().unsqueeze(1) * gathered)
    torch.testing.assert_close(kernels.weighted_sums(values, rows, index, starts).double(), sums, rtol=1e-5, atol=1e-5)
    products = (gathered * left[group].double()).sum(1)
    found = kernels.dot_products(left, rows, index, starts)
    torch.testing.assert_close(found.double(), products, rtol=1e-5, atol=1e-5)


@by_triton
def test_no_pairs_give_zeros(kernels):
    index, starts, _ = groups([0, 0], 3)
    assert kernels.weighted_sums(random(0), random(3, 5), index, starts).tolist() == [[0] * 5] * 2
    assert kernels.dot_products(random(2, 5), random(3, 5), index, starts).shape == (0,)


@by_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("K", "k"), [(40, 5), (3, 3), (100, 1), (60, 17)])
def test_the_kernel_selects_the_largest_entries(kernels, K, k, dtype):
    assert kernels.can_select(K, k, dtype)
    pre = random(2, K, dtype=dtype)
    pre[1] = -pre[1].abs()
    values, indices = kernels.top_k(pre, k)
    assert torch.equal(values, pre.gather(1, indices))
    assert torch.equal(values.sort().values, pre.topk(k).values.flip(1))
    assert all(len(set(row)) == k for row in indices.tolist())


@by_triton
def test_of_equal_entries_the_kernel_selects_none_twice(kernels):
    pre = torch.zeros(2, 50, device=DEVICE)
    pre[1, 7:] = float("-inf")
    values, indices = kernels.top_k(pre, 6)
    assert [len(set(row)) for row in indices.tolist()] == [6, 6]
    assert values.tolist() == [[0] * 6] * 2


@by_triton
def test_what_the_kernel_cannot_select_torch_does(kernels, monkeypatch):
    monkeypatch.setattr(dispatch, "by_kernels", lambda device: True)
    for pre, k in ((random(2, 30_000), 1000), (random(2, 40, dtype=torch.float64), 2)):
        assert not kernels.can_select(pre.shape[1], k, pre.dtype)
        assert torch.equal(selection.top_k(pre, k)[0].sort().values, pre.topk(k).values.sort().values)


@by_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("B", "K"), [(1, 1), (150, 20), (130, 1100)])
def test_the_kernels_of_relu_give_codes_sums_counts_and_the_gradient(kernels, B, K, dtype):
    pre, grad, of_sums = random(B, K, dtype=dtype), random(B, K, dtype=dtype, seed=1), random(K, seed=2)
    exact = pre.double().relu()
    codes, sums, counts = kernels.relu_with_sums(pre.clone())
    assert torch.equal(codes.double(), exact)
    assert torch.equal(counts, (exact > 0).sum(0))
    torch.testing.assert_close(sums.double(), exact.sum(0), rtol=1e-5, atol=1e-5)
    wanted = ((grad.double() + of_sums.double()) * (exact > 0)).to(dtype)
    torch.testing.assert_close(kernels.relu_backward(grad, codes, of_sums), wanted)


@by_triton
def test_relu_keeps_nan(kernels):
    assert kernels.relu_with_sums(torch.full((2, 3), float("nan"), device=DEVICE))[0].isnan().all()


def test_a_kernel_that_does_not_run_is_named_once_and_torch_takes_its_place(monkeypatch):
    monkeypatch.setattr(dispatch, "by_kernels", lambda device: True)
    monkeypatch.setattr(dispatch, "FAILED", set())
    x = torch.ones(3)
    with pytest.warns(UserWarning, match="the kernel of_no_use failed") as seen:
        doubled = [dispatch.by_kernel("of_no_use", lambda x: 2 * x, x.device, x).tolist() for _ in range(2)]
    assert doubled == [[2, 2, 2]] * 2
    assert len(seen) == 1


@by_triton
@pytest.mark.parametrize("dense_above", [1.0, 0.0])  # sparse products whatever is on, or dense ones
@pytest.mark.parametrize("make", [lambda: TopKSAE(12, 40, 5, aux_k=3), lambda: ReLUSAE(12, 40)])
def test_losses_and_gradients_by_kernels_are_those_of_torchs_own_operators(make, dense_above, monkeypatch):
    x, dead = random(6, 12), torch.arange(4, 10, device=DEVICE)
    monkeypatch.setattr(support, "DENSE_ABOVE", {DEVICE: dense_above})
    found = []
    for by_kernels in (True, False):
        monkeypatch.setattr(dispatch, "by_kernels", lambda device, answer=by_kernels: answer)
        torch.manual_seed(0)
        net = make().to(DEVICE)
        loss = net.loss(x, dead)
        loss.total.backward()
        found.append((loss.total.detach(), loss.fired, *(p.grad for p in net.parameters())))
    assert not dispatch.FAILED
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@by_triton
def test_under_autocast_rows_are_gathered_in_bfloat16_and_added_up_in_float32(monkeypatch):
    monkeypatch.setattr(dispatch, "by_kernels", lambda device: True)
    values = random(4)
    assert gathered_rows.gathered_dtype(values) == torch.float32
    with torch.autocast(DEVICE, torch.bfloat16):
        assert gathered_rows.gathered_dtype(values) == torch.bfloat16
        torch.manual_seed(0)
        net, x = TopKSAE(12, 40, 5).to(DEVICE), random(6, 12)
        loss = net.loss(x)
    loss.total.backward()
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}
    exact = net.loss(x)
    exact.total.backward()
    torch.testing.assert_close(loss.total, exact.total, rtol=0.03, atol=0)
