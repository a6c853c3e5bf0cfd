import pytest
import torch

from zoo.errors import ZooError
from zoo.models import CircuitNet
from zoo.models.toy.circuits import interference, interference_of_active


def errors(kind, correction, z=3, T=50, N=48, depth=3, n_seeds=200):
    """Mean squared error of active circuits by depth, and its standard error over networks."""
    torch.manual_seed(0)
    net = CircuitNet(T, N, 4, depth, kind, correction, n_seeds)
    active = torch.zeros(n_seeds, 1, T)
    active[..., :z] = 1
    with torch.no_grad():
        read, wanted = net(active)
    error = (read - wanted)[..., :z, :].square().sum(4).mean((2, 3))  # (depth + 1, n_seeds)
    return error.mean(1).tolist(), (error.std(1) / n_seeds**0.5).tolist()


@pytest.mark.parametrize("kind", ["rotation", "boolean"])
def test_without_correction_errors_grow_as_stated(kind):
    for depth, (found, error) in enumerate(zip(*errors(kind, "none"), strict=True)):
        assert found == pytest.approx(interference(depth, 48, 50, 3), abs=4 * error)


def test_with_inactive_circuits_silenced_errors_do_not_depend_on_their_number():
    for T in (5, 50):
        for depth, (found, error) in enumerate(zip(*errors("rotation", "ideal", T=T), strict=True)):
            assert found == pytest.approx(interference_of_active(depth, 48, 3), abs=4 * error)


def test_rounded_boolean_states_have_the_error_of_one_reading_at_every_depth():
    for found, error in zip(*errors("boolean", "ideal"), strict=True):
        assert found == pytest.approx(2 / 48, abs=4 * error)


def test_one_circuit_alone_has_no_error_at_first_and_maps_keep_norms():
    assert interference(0, 10, 5, 1) == interference_of_active(4, 10, 1) == 0
    net = CircuitNet(1, 8, 4, 5, "rotation", "none", 3)
    read, wanted = net(torch.ones(3, 1, 1))
    torch.testing.assert_close(read, wanted)
    torch.testing.assert_close(wanted.norm(dim=4), torch.ones(6, 3, 1, 1))


def test_boolean_states_stay_boolean():
    wanted = CircuitNet(4, 8, 4, 3, "boolean", "none", 2)(torch.ones(2, 1, 4))[1]
    torch.testing.assert_close(wanted.abs(), torch.full_like(wanted, 0.5))


def test_sizes_out_of_range_are_refused():
    for call, said in (
        (lambda: interference(-1, 4, 4, 1), "depth must be at least 0"),
        (lambda: interference(1, 4, 4, 5), "n_active 1 to n_circuits"),
        (lambda: CircuitNet(0), "n_circuits is 0"),
        (lambda: CircuitNet(4, kind="swap"), "rotation or boolean"),
    ):
        with pytest.raises(ZooError, match=said):
            call()
