"""The choices that solvers make on an accelerator, which need none to be tested."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.models.sparse_coding import sparsa
from zoo.models.sparse_coding.rows import rows_at_once

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class Products(TorchDispatchMode):
    """Counts the products of two matrices."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func.overloadpacket is torch.ops.aten.mm
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("free", "reserved", "rows"), [(80e9, 0, 40_000), (40e9, 40e9, 40_000), (1e6, 0, 4096)])
def test_as_many_rows_are_solved_at_once_as_fill_half_of_the_free_memory(free, reserved, rows, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(141e9)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: int(reserved) + 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 500)
    assert rows_at_once(4096, 10**6, CUDA) == rows
    assert rows_at_once(4096, 10**6, CPU) == 4096


def test_a_step_needs_two_products_and_its_gap_and_line_search_none():
    generator = torch.Generator().manual_seed(0)
    X, D = torch.randn(30, 12, generator=generator), torch.randn(40, 12, generator=generator)
    lam, codes = torch.full((30,), 0.1), torch.zeros(30, 40)
    with Products() as counted:
        sparsa.solve(X, D, lam, codes, tolerance=-1.0, positive=False, max_rounds=2)  # no row is ever done
    assert counted.n == 2 + 2 * 20
