"""Perturbations of networks that compute ANDs, with weights by hand so that every divergence is known."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from zoo.analysis import planted_perturbations as planted
from zoo.analysis.local_response import bernoulli_kl
from zoo.models.toy.gates import GateLayer
from zoo.models.toy.readoffs import all_pairs

K = 6
SLOPE = 4.0
TINY, LARGE = 1e-4, 0.5


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(thresholded):
    """Neurons that compute ReLU(x_i + x_j - 1) - ReLU(x_i - 1) - ReLU(x_j - 1), the ANDs of orthogonal features."""
    atoms, pairs = torch.eye(K).double(), all_pairs(K)
    n_pairs = pairs.shape[1]
    both = atoms[pairs[0]] + atoms[pairs[1]]  # (P, K)
    layer = GateLayer(K, n_pairs + K, n_pairs).double().requires_grad_(False)
    layer.W_in[0], layer.b_in[0] = torch.cat([both, atoms]).T, -1.0
    layer.W_out[0], layer.b_out[0] = torch.cat([torch.eye(n_pairs), -both.T]), 0.0
    return planted.PlantedNetwork(atoms, layer, thresholded, SLOPE)


def linear(atoms):
    return planted.PlantedNetwork(atoms, None, False, SLOPE)


def of_one(before, after):
    """The divergence of one Bernoulli variable whose AND goes from one value to another."""
    p, q = torch.tensor([before - 0.5, after - 0.5]).double() * SLOPE
    return float(bernoulli_kl(p[None], q[None]))


def points(net, shares=(TINY, LARGE), n=4):
    return planted.planted(net, planted.inputs(len(net.atoms), n, np.random.default_rng(0)), shares, generator())


def test_the_response_to_an_added_and_to_a_missing_feature_is_that_of_the_ands_that_change():
    for thresholded, after in ((True, 2 * 0.4 - 0.5), (False, 0.4)):
        net = network(thresholded)
        f = torch.tensor([1.0, 1, 0, 0, 0, 0]).double()
        respond, change = net.response(f), 0.4 * torch.eye(K).double()
        added = respond(change)[2:]
        torch.testing.assert_close(
            added, torch.full_like(added, 2 * of_one(0, after))
        )  # with both features that are on
        missing = respond(-change)[:2]
        torch.testing.assert_close(missing, torch.full_like(missing, of_one(1, 1 - after)))
        assert (respond(-change)[2:] == 0).all()  # a feature that is off cannot be taken away
        assert (respond(change)[:2] == 0).all()  # and one that is on cannot be added


def test_a_threshold_hides_small_errors_and_the_quadratic_form_predicts_the_others():
    net = network(True)
    hidden = planted.errors(net, points(net), generator())
    assert all((values[:, 0] == 0).all() for values in hidden.values())  # divergence and quadratic form
    for net in (linear(planted.spread_atoms(8, 5, generator()).double()), linear(torch.eye(K).double())):
        for measure in (planted.errors, planted.changes_of_codes):
            for values in measure(net, points(net), generator()).values():
                assert values[:, 0, 0] == pytest.approx(values[:, 0, 1], rel=1e-2)


def test_errors_along_features_cost_what_is_computed_by_hand():
    net = network(True)
    point = points(net, (LARGE,))
    radius = float(point[0].radii[0])
    assert radius == pytest.approx(0.5 * (2 * (1 - 1 / 3) ** 2 + 4 / 9) ** 0.5)
    found = planted.errors(net, point, generator())["toward the other value"]
    value = min(max(2 * radius - 0.5, 0), 1)
    expected = ((K - 2) * 2 * of_one(0, value) + 2 * of_one(1, 1 - value)) / K
    assert found[:, 0, 0] == pytest.approx(expected)
    assert (planted.errors(net, point, generator())["away from the other value"] == 0).all()


def test_exponents_are_2_for_a_linear_readout_and_above_where_errors_are_corrected():
    flat = linear(planted.spread_atoms(8, 5, generator()).double())
    for values in planted.exponents(flat, points(flat, (TINY,)), 2, generator()).values():
        assert values == pytest.approx(2, abs=1e-2)
    net = network(True)
    found = planted.exponents(net, points(net, (TINY, LARGE)), 2, generator())["two inactive features"]
    assert np.isnan(found[:, 0]).all()  # no response at all
    assert (found[:, 1] > 3).all()


def test_ascent_ends_at_features_wherever_there_is_a_slope_and_the_sphere_shows_them():
    net = network(True)
    found = planted.sphere(net, points(net, (LARGE,), 3), 500, 60, generator())
    climbed = found["height"] > 0
    assert 0.2 < climbed.mean() < 1  # the others started where nothing changes, and stay
    assert (found["planted"][climbed] > 0.999).mean() > 0.5
    assert (found["planted"][climbed] > 0.69).all()  # others end between the two features that are on
    assert (found["permuted"][climbed] > 0.999).mean() < 0.1
    assert set(found["nearest"][climbed]) == set(range(K))
    assert (found["planted isotropic"] > 0.9).all()
    assert (found["idle"] == 0).all()  # no AND of two inactive features changes below this radius


def test_atoms_are_moved_apart():
    atoms = planted.spread_atoms(32, 24, generator())
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(32))
    plain = torch.nn.functional.normalize(torch.randn(32, 24, generator=generator()), dim=1)
    largest = [(x @ x.T).fill_diagonal_(0).abs().max() for x in (atoms, plain)]
    assert largest[0] < 0.4 * largest[1]


@pytest.mark.parametrize("kind", ["trained", "random"])
def test_layers_compute_the_ands_of_superposed_features_and_a_seed_gives_the_same_layer(kind):
    atoms = planted.spread_atoms(10, 8, generator())

    def made():
        if kind == "trained":
            return planted.train_gates(atoms, 64, 0.3, 300, generator(1))
        return planted.random_gates(atoms, 256, 0.3, generator(1))

    layer, again = made(), made()
    for a, b in zip(layer.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    f = planted.inputs(10, 45, np.random.default_rng(0))
    net = planted.PlantedNetwork(atoms.double(), layer.double(), False, SLOPE)
    assert (planted.gate_errors(net, f) < 0.5).all()
    assert (planted.gate_errors(linear(atoms.double()), f) >= 0.5).any()  # which no affine readoff does


class OnlyOnOrOff(NamedTuple):
    """A network whose response counts the features that a change turns on or off, and nothing else."""

    atoms: torch.Tensor

    def response(self, x):
        on = x @ self.atoms.T > 0.25
        return lambda changes: (((x + changes) @ self.atoms.T > 0.25) != on).double().sum(1)


def test_orthogonal_atoms_keep_their_support_when_they_are_encoded_again():
    net = OnlyOnOrOff(torch.eye(8).double())
    f = planted.inputs(8, 3, np.random.default_rng(0))
    points = planted.planted(net, f, (0.01, 0.5), generator())
    found = planted.re_encoded(net, points, generator(1))
    assert (found["share"] == 1).all()
    assert (found["L0-preserving"][:, 0] == 0).all()


def test_wrong_codes_cost_nothing_if_only_the_support_matters_and_wrong_directions_do():
    net = OnlyOnOrOff(torch.eye(8).double())
    found = planted.exchanges(net, planted.inputs(8, 3, np.random.default_rng(0)), generator())
    assert (found["wrong codes"] == 0).all()
    assert (found["wrong directions"] > 0).all()
