import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.dictionary_step import MethodOfOptimalDirections, sufficient_statistics
from zoo.models.sparse_coding.rows import csr_of
from zoo.null_models import planted

N, D, K = 400, 16, 24


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n=N, seed=0):
    """Rows, atoms and codes, of some atoms mostly negative, where the codes only nearly give the rows."""
    g = generator(seed)
    codes = planted(n, D, K, 4, generator=g)[2] * (torch.rand(n, K, generator=g) - torch.linspace(0.2, 0.8, K)).sign()
    atoms = F.normalize(torch.randn(K, D, generator=g))
    return codes @ atoms + 0.1 * torch.randn(n, D, generator=g), atoms, codes


def optimizer(atoms, **options):
    return MethodOfOptimalDirections(nn.Parameter(atoms.clone()), **options)


def dictionary(step):
    return step.param_groups[0]["params"][0].detach()


def renewed(step, codes, x, weight=None):
    """The dictionary after a step with these codes."""
    step.add(csr_of(codes), x, torch.zeros(x.shape[1]), weight)
    step.step()
    return dictionary(step)


def least_squares(codes, x, weight=None):
    """Atoms by numpy, before they are given unit norm."""
    root = np.sqrt(np.ones(len(x)) if weight is None else weight.double().numpy())[:, None]
    return torch.from_numpy(np.linalg.lstsq(root * codes.double().numpy(), root * x.double().numpy())[0])


def directions(atoms, codes):
    """Unit atoms, turned so that their codes add up to more than 0."""
    sign = torch.where(codes.sum(0) < 0, -1.0, 1.0).unsqueeze(1)
    return F.normalize(sign * atoms).float()


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


@pytest.fixture
def few():
    """Codes (40, 5) of 5 orthogonal atoms, equally used, the last not at all; rows that the codes give exactly, except
    for rows 7 and 21, which have something more along an axis of their own."""
    codes = torch.zeros(40, 5)
    codes[torch.arange(40), torch.arange(40) % 4] = 1 + torch.rand(40, generator=generator())
    atoms = torch.eye(D)[:5]
    x = codes @ atoms
    x[7, 8], x[21, 9] = 2.0, -3.0
    return codes, atoms, x


def test_exact_codes_of_planted_atoms_give_these_atoms():
    rows, atoms, codes = planted(N, D, K, 3, generator=generator())
    close(renewed(optimizer(F.normalize(torch.randn(K, D, generator=generator(1)))), codes, rows), atoms)


@pytest.mark.parametrize("weighted", [False, True])
def test_atoms_are_those_of_least_squares_at_unit_norm(weighted):
    x, atoms, codes = problem()
    weight = torch.rand(N, generator=generator(1)) ** 3
    found = renewed(optimizer(atoms), codes, x, weight if weighted else None)
    of_weights, of_all = (least_squares(codes, x, weight), weight[:, None] * codes), (least_squares(codes, x), codes)
    close(found, directions(*(of_weights if weighted else of_all)))
    close(found.norm(dim=1), torch.ones(K), 1e-6)
    assert not torch.allclose(found, directions(*(of_all if weighted else of_weights)), atol=1e-3)


def test_an_atom_points_where_its_codes_add_up_to_more_than_0():
    x, atoms, codes = problem()
    step, turned = optimizer(atoms), optimizer(atoms)
    found = renewed(step, codes, x)
    assert 3 < (codes.sum(0) < 0).sum() < K - 3
    assert ((codes * step.sizes).sum(0) > 0).all()
    turn = torch.ones(K).index_fill_(0, torch.arange(0, K, 2), -1.0)
    assert torch.equal(renewed(turned, turn * codes, x), found)
    assert torch.equal(turned.sizes, turn * step.sizes)


def test_codes_times_sizes_reconstruct_what_the_unscaled_atoms_did():
    x, atoms, codes = problem()
    step = optimizer(atoms)
    found = renewed(step, codes, x)
    close((codes * step.sizes) @ found.double(), codes.double() @ least_squares(codes, x), 1e-4)


def test_weights_are_repeated_rows():
    x, atoms, codes = problem()
    counts = torch.arange(N) % 4
    repeated = renewed(optimizer(atoms), codes.repeat_interleave(counts, 0), x.repeat_interleave(counts, 0))
    close(renewed(optimizer(atoms), codes, x, counts / 7), repeated)


def test_nothing_is_replaced_where_every_atom_is_used_and_alone():
    x, atoms, codes = problem()
    step = optimizer(atoms)
    renewed(step, codes, x)
    assert step.replaced == 0
    assert (step.sizes != 0).all()


def test_an_atom_that_no_row_uses_becomes_the_worst_rows_residual(few):
    codes, atoms, x = few
    step = optimizer(atoms, replace_below=0.0)
    found = renewed(step, codes, x)
    close(found[:4], F.normalize(least_squares(codes[:, :4], x)).float())
    close(found[4], -torch.eye(D)[9])
    assert (step.replaced, step.sizes[4].item()) == (1, 0)


def test_the_worst_row_is_that_of_the_largest_weighted_error(few):
    codes, atoms, x = few
    weight = torch.ones(40)
    weight[7] = 3.0
    close(renewed(optimizer(atoms), codes, x, weight)[4], torch.eye(D)[8])


def test_an_atom_that_only_rows_without_weight_use_is_replaced(few):
    codes, atoms, x = few
    weight = torch.ones(40)
    weight[:12] = 0
    codes[:12] = 0
    codes[:12, 4] = 1.0
    step = optimizer(atoms)
    close(renewed(step, codes, x, weight)[4], -torch.eye(D)[9])
    assert step.replaced == 1


@pytest.mark.parametrize(("replace_below", "replaced"), [(0.0, 0), (0.1, 0), (0.2, 1), (0.9, 1)])
def test_an_atom_used_below_a_share_of_the_mean_use_is_replaced(few, replace_below, replaced):
    codes, atoms, x = few
    codes[0, 4] = 1.0
    x[0, 4] = 1.0  # once, where the mean use is 8.2
    step = optimizer(atoms, replace_below=replace_below)
    found = renewed(step, codes, x)
    assert step.replaced == replaced
    close(found[4], -torch.eye(D)[9] if replaced else torch.eye(D)[4])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("cosine", "replaced"), [(0.94, 0), (0.96, 1)])
def test_the_less_used_of_two_atoms_that_nearly_coincide_is_replaced(few, cosine, replaced, sign):
    codes, atoms, _ = few
    atoms[4] = sign * torch.tensor([0, cosine, 0, 0, 0, (1 - cosine**2) ** 0.5] + [0.0] * 10)
    codes[:12] = 0
    codes[torch.arange(9), [4] * 9] = 1.0  # 9 rows use the last atom and 7 the second
    exact = codes @ atoms
    exact[30, 8] = 5.0
    step = optimizer(atoms)
    found = renewed(step, codes, exact)
    assert step.replaced == replaced
    close(found[4], atoms[4])
    close(found[1], torch.eye(D)[8] if replaced else atoms[1])


def test_with_fewer_rows_in_error_than_poor_atoms_the_others_stay(few):
    codes, atoms, x = few
    more = F.normalize(torch.randn(4, D, generator=generator()))
    step = optimizer(torch.cat([atoms, more]))
    found = renewed(step, F.pad(codes, (0, 4)), x)  # 5 atoms without use, 2 rows in error
    assert step.replaced == 2
    close(found[4:6], torch.stack([-torch.eye(D)[9], torch.eye(D)[8]]))
    assert torch.equal(found[6:], more[1:])


def test_with_fewer_rows_than_poor_atoms_the_others_stay(few):
    codes, atoms, x = few
    step = optimizer(atoms)
    found = renewed(step, codes[7:8], x[7:8])  # of the fourth atom, and of what no atom gives
    assert step.replaced == 1
    close(found[0], torch.eye(D)[8])
    assert torch.equal(found[[1, 2, 4]], atoms[[1, 2, 4]])


def test_codes_of_nothing_but_zeros_make_every_atom_a_residual(few):
    _, atoms, x = few
    step = optimizer(atoms)
    found = renewed(step, torch.zeros(40, 5), x)
    assert step.replaced == 5
    worst = x.norm(dim=1).argsort(descending=True)[:5]
    close(found, F.normalize(x[worst]))


@pytest.mark.parametrize("memory", [0.0, 0.3, 0.9])
def test_memory_keeps_the_rows_of_earlier_batches_with_less_weight(memory):
    (x, atoms, codes), (x_2, _, codes_2) = problem(), problem(150, 1)
    step = optimizer(atoms, memory=memory)
    renewed(step, codes, x)
    codes = codes * step.sizes.float()  # as they are for the atoms at unit norm
    found = renewed(step, codes_2, x_2)
    assert step.replaced == 0
    weight = torch.cat([torch.full((N,), memory), torch.ones(150)])
    every_code = torch.cat([codes, codes_2])
    expected = least_squares(every_code, torch.cat([x, x_2]), weight)
    close(found, directions(expected, weight[:, None] * every_code))


def test_a_new_atom_is_given_time_to_be_used(few):
    codes, atoms, x = few
    step = optimizer(atoms, memory=0.5)
    replaced = []
    for _ in range(8):
        renewed(step, codes, x)
        replaced.append(step.replaced)
    assert replaced == [1, 0, 0, 1, 0, 0, 0, 1]  # after shares 0.31, 0.14, 0.07 and then 0.44, 0.23, 0.12, 0.06 of use


def test_sums_that_were_kept_go_on_as_if_never_kept():
    whole, first = (optimizer(problem()[1], memory=0.7) for _ in range(2))
    for seed in (0, 1, 2):
        x, _, codes = problem(seed=seed)
        expected = renewed(whole, codes, x)
        if seed < 2:
            renewed(first, codes, x)
    again = optimizer(dictionary(first), memory=0.7)
    again.load_sums({name: value.clone() for name, value in first.sums().items()})
    assert torch.equal(renewed(again, codes, x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sufficient_statistics_are_the_dense_products_in_double_precision(dtype):
    x, _, codes = (t.to(dtype) for t in problem())
    codes[5:20] = 0
    weight = torch.rand(N, generator=generator(2))
    mean = x.mean(0)
    gram, cross = sufficient_statistics(csr_of(codes), x, mean, weight)
    weighted = codes.double().T * weight.double()
    torch.testing.assert_close(gram, weighted @ codes.double(), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(cross, weighted @ (x - mean).double(), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_data_in_half_precision_give_the_dictionary_of_the_same_numbers(dtype):
    x, atoms, codes = problem()
    x = x.to(dtype)
    assert torch.equal(renewed(optimizer(atoms), codes, x), renewed(optimizer(atoms), codes, x.float()))
