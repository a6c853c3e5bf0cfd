import pytest
import torch

from zoo.errors import ZooError
from zoo.models import CircuitNet
from zoo.models.toy.circuits import block_errors, block_network, interference, interference_of_active


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


def circuits(depth=4, n=3, d=4):
    """Circuits with whole numbers, whose sums have no rounding errors, and the first states of all of them."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(-1, 3, (depth, n, n, d, d), generator=generator).double() + 4 * torch.eye(d)
    return maps, torch.randint(1, 4, (n, n, d), generator=generator).double()


def test_blocks_run_every_one_of_n_squared_circuits_alone_without_any_error():
    maps, states = circuits()
    alone = torch.eye(9, dtype=torch.float64).view(9, 3, 3)
    for active in alone:
        assert block_errors(maps, states[None], active[None]).tolist() == [0.0] * 5
    assert block_network(maps, 3.0).weights.shape == (4, 3 * (4 + 2), 3 * (4 + 2))
    network = block_network(maps, 3.0)
    h = network.inputs(states[None], alone[5][None])  # circuit (1, 2), by the plain loop that the docstring promises
    x = states[1, 2]
    for layer in range(4):
        h, x = torch.relu(h @ network.weights[layer]), torch.relu(x @ maps[layer, 1, 2])
    assert x.abs().sum() > 0
    assert h[0, 4:8].tolist() == x.tolist()  # after an even number of layers in block a = 1
    assert h[0, [0, 1, 2, 3, 8, 9, 10, 11]].tolist() == [0.0] * 8


def test_blocks_fail_if_two_circuits_are_active():
    maps, states = circuits()
    active = torch.zeros(1, 3, 3, dtype=torch.float64)
    active[0, 0, 1] = active[0, 1, 2] = 1
    first, *deeper = block_errors(maps, states[None], active).tolist()
    assert first == 0  # they are in different blocks
    assert all(error > 0.1 for error in deeper)


def test_blocks_fail_with_one_active_circuit_if_idle_ones_are_not_silenced():
    maps, states = circuits()
    network, active = block_network(maps, 3.0), torch.zeros(1, 3, 3, dtype=torch.float64)
    active[0, 0, 1] = 1
    h, x = network.inputs(states[None], active), states[0, 1]
    h[:, 12:] = 0  # no block counts as idle
    for layer in range(2):
        h, x = torch.relu(h @ network.weights[layer]), torch.relu(x @ maps[layer, 0, 1])
    assert (h[0, :4] - x).abs().max() > 0


def test_as_many_circuits_as_squared_places_err_by_their_own_size_after_one_layer_unless_silenced():
    n = 64
    assert interference(1, n, n**2, 1) == pytest.approx(1 - 1 / n**2)
    assert interference(1, n, n**2, 1) == pytest.approx(0.999755859375)
    assert interference(1, n, n, 1) == pytest.approx(63 / 64**2)
    assert interference_of_active(1, n, 1) == 0


def test_circuits_of_a_wrong_shape_are_refused(refused):
    with refused("the shape must be"):
        block_network(torch.zeros(2, 3, 4, 5, 5), 1.0)
    with refused("largest is 0"):
        block_network(torch.zeros(2, 3, 3, 5, 5), 0.0)
