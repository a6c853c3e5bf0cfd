import math

import pytest
import torch

from zoo.analysis.known_minima import CASES, Case
from zoo.analysis.small_networks import LinearNetwork, loss


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_potential_is_0_at_the_centre_and_positive_elsewhere(case):
    center = case.center()
    assert case.potential(center[None]).item() == 0
    noise = torch.randn(50, len(center), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (case.potential(center + noise) > 0).all()


def test_the_exact_values_of_five_inputs_and_outputs():
    found = [case.limit().value for case in CASES if case.sizes == (5, 3, 5)]
    assert found == [6.5, 8, 9.5, 10.5, 7.5, 8.5]


def test_the_potential_of_two_matrices_is_the_loss_of_the_linear_network():
    case, network = Case("linear", (4, 2, 3), 1), LinearNetwork(4, 2, 3)
    w = torch.randn(5, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(case.potential(w), loss(network, network.target([1.0]), w))


def test_the_generic_point_has_a_jacobian_of_a_rank_of_twice_the_value():
    for rank in (0, 1, 2):
        case = Case("linear", (5, 3, 5), rank, generic=True)
        center = case.center()
        hessian = torch.func.hessian(lambda w, case=case: case.potential(w[None])[0])(center)
        assert torch.linalg.matrix_rank(hessian, hermitian=True) == 2 * case.limit().value


def test_the_leading_correction_is_close_to_the_exact_expectation_of_a_monomial():
    # For K = (w1 w2)² the correction is -1 / ln nβ; the next term is smaller by a factor of ln nβ.
    case = Case("monomial", (1, 1))
    limit = case.limit()
    corrected = limit.value - (limit.multiplicity - 1) / math.log(1e20)
    assert case.expected(1e20) == pytest.approx(corrected, abs=3 / math.log(1e20) ** 2)
    assert Case("linear", (1, 1, 1), 0).expected(1e20) == pytest.approx(corrected)


def test_monomials_are_products_of_powers():
    w = torch.tensor([[2.0, 3.0], [-1.0, 0.5]], dtype=torch.float64)
    assert Case("monomial", (1, 2)).potential(w).tolist() == [4 * 81, 0.0625]
