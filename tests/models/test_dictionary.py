import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import sparse_encode

import zoo
from zoo.models import Dictionary
from zoo.models.sparse_coding import duality_gap
from zoo.null_models import planted

D, K = 12, 30


def rows(n=150, seed=0):
    """Rows about a mean that is not 0."""
    return planted(n, D, 20, 3, noise=0.1, generator=torch.Generator().manual_seed(seed))[0] + 0.7


def fitted(x, **options):
    """A dictionary of random atoms with the mean and scale of data."""
    torch.manual_seed(0)
    net = Dictionary(D, K, **options)
    net.fit_moments(x)
    return net


def about_the_mean(x):
    """The rows about their mean, and the root mean square of their lengths."""
    centred = x - x.mean(0)
    return centred, centred.square().sum(1).mean().sqrt().item()


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("penalty", [0.05, 0.3])
def test_codes_are_scikit_learns_lasso_of_rows_about_their_mean_in_units_of_their_spread(penalty, positive):
    x = rows()
    net = fitted(x, penalty=penalty, positive=positive, tolerance=1e-8)
    centred, spread = about_the_mean(x.double())
    atoms = net.W_dec.detach().double().numpy()
    options = {"algorithm": "lasso_cd", "alpha": penalty * spread, "positive": positive, "max_iter": 10_000}
    theirs = torch.from_numpy(sparse_encode(centred.numpy(), atoms, **options))
    torch.testing.assert_close(net.encode(x).double(), theirs, atol=1e-3, rtol=0)
    assert (theirs != 0).any(1).float().mean() > 0.9


@pytest.mark.parametrize("positive", [False, True])
def test_every_codes_duality_gap_is_within_the_tolerance(positive):
    x = rows()
    net = fitted(x, positive=positive, tolerance=1e-3)
    centred, spread = about_the_mean(x)
    objective, gap = duality_gap(centred, net.W_dec.detach(), net.encode(x), net.penalty * spread, positive)
    assert (gap <= 1.001e-3 * objective).all()
    assert gap.max() > 0


@pytest.mark.parametrize("factor", [1024.0, 1 / 1024])  # powers of two, which round nothing
def test_codes_and_reconstructions_have_the_unit_of_the_data(factor):
    x = rows()
    for one, other in zip(fitted(x).reconstruct(x), fitted(factor * x).reconstruct(factor * x), strict=True):
        assert torch.equal(other, factor * one)


def test_codes_are_blind_to_where_the_data_lie():
    x = rows()
    codes, moved = (fitted(y, tolerance=1e-8).encode(y) for y in (x, x + 5))
    torch.testing.assert_close(moved, codes, atol=1e-4, rtol=0)


def test_a_row_of_typical_length_needs_a_cosine_above_the_penalty():
    u, v = torch.eye(D)[:2]
    net = Dictionary(D, 1, penalty=0.3)
    net.load_state_dict({"W_dec": u[None], "b_dec": torch.full((D,), 2.0), "scale": torch.tensor(7.0)})
    for cosine in (-0.9, -0.31, -0.29, 0.0, 0.29, 0.31, 1.0):
        code = net.encode(2 + 7 * (cosine * u + math.sqrt(1 - cosine**2) * v)).item()
        assert code == pytest.approx(math.copysign(7 * max(abs(cosine) - 0.3, 0.0), cosine), abs=1e-3)


def test_positive_codes_are_never_negative_and_others_are():
    x = rows()
    assert fitted(x, positive=True).encode(x).min() == 0
    assert fitted(x).encode(x).min() < 0


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (4, 0, 2)])
def test_leading_dimensions_are_kept(leading):
    net = fitted(rows())
    x = rows(max(1, math.prod(leading)))[: math.prod(leading)].view(*leading, D)
    x_hat, codes = net.reconstruct(x)
    assert (x_hat.shape, codes.shape) == ((*leading, D), (*leading, K))
    flat = net.reconstruct(x.reshape(-1, D))
    assert torch.equal(x_hat.reshape(-1, D), flat[0])
    assert torch.equal(codes.reshape(-1, K), flat[1])
    assert torch.equal(net(x), x_hat)


def test_a_matrix_of_codes_in_compressed_rows_decodes_as_the_dense_one():
    x = rows()
    net = fitted(x)
    torch.testing.assert_close(net.decode(net.solve(x).codes), net.reconstruct(x)[0])


def test_lower_precision_around_it_changes_nothing():
    x = rows()
    net = fitted(x)
    expected = net.reconstruct(x)
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(expected, net.reconstruct(x), strict=True):
            assert torch.equal(other, one)
        assert net.solve(x).certified.all()


def test_codes_that_start_elsewhere_end_at_the_same_optimum():
    x = rows()
    net = fitted(x, tolerance=1e-8)
    start = torch.randn(len(x), K, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net.solve(x, start).codes.to_dense(), net.encode(x), atol=1e-3, rtol=0)


def test_its_config_rebuilds_it():
    net = Dictionary(D, K, penalty=0.25, positive=True, tolerance=1e-3)
    again = Dictionary(**net.config)
    assert again.config == net.config
    assert [again.penalty, again.positive, again.tolerance] == [0.25, True, 1e-3]
    assert again.W_dec.shape == (K, D)


def test_a_saved_dictionary_gives_the_same_codes(tmp_path):
    x = rows()
    net = fitted(x, penalty=0.2, positive=True)
    again = zoo.load(zoo.save(net, tmp_path / "saved"))
    assert type(again) is Dictionary
    for one, other in zip(net.reconstruct(x), again.reconstruct(x), strict=True):
        assert torch.equal(other, one)


def test_weights_count_as_repeated_rows_in_mean_and_scale():
    x, counts = rows(), torch.arange(150) % 4
    weighted, repeated = Dictionary(D, K), Dictionary(D, K)
    weighted.fit_moments(x, counts / 3)
    repeated.fit_moments(x.repeat_interleave(counts, 0))
    torch.testing.assert_close(weighted.b_dec, repeated.b_dec)
    torch.testing.assert_close(weighted.scale, repeated.scale)
    assert not torch.allclose(weighted.b_dec, x.mean(0))


def test_first_atoms_are_different_rows_directions():
    x = rows()
    x[:20] = x[20:].mean(0)  # which is then everyone's mean: rows without a direction
    net = fitted(x)
    net.take_as_atoms(x)
    nearest, which = (net.W_dec @ F.normalize(x - x.mean(0))[20:].T).max(1)
    torch.testing.assert_close(nearest, torch.ones(K))
    torch.testing.assert_close(net.W_dec.norm(dim=1), torch.ones(K))
    assert len(which.unique()) == K


def test_with_fewer_rows_than_atoms_the_rest_stay():
    x = rows()
    net = fitted(x)
    before = net.W_dec.detach().clone()
    net.take_as_atoms(x[:10])
    assert torch.equal(net.W_dec[10:], before[10:])
    assert ((net.W_dec - before).norm(dim=1)[:10] > 0.1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_in": 0}, "d_in is 0"),
        ({"n_atoms": 0}, "n_atoms is 0"),
        ({"n_atoms": 2.5}, "n_atoms is 2.5; it must be a whole number"),
        ({"penalty": 0.0}, "penalty is 0.0; .*basis_pursuit solves the problem without a penalty"),
        ({"penalty": math.inf}, "penalty is inf"),
        ({"penalty": math.nan}, "penalty is nan"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"tolerance": 1.0}, "tolerance is 1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(refused, options, message):
    with refused(message):
        Dictionary(**{"d_in": D, "n_atoms": K} | options)


def test_data_that_do_not_fit_are_refused(refused):
    net = fitted(rows())
    with refused("the data have 13 dimensions, but d_in of the dictionary is 12"):
        net.encode(torch.zeros(4, D + 1))
    x = rows()
    x[5, 3] = math.nan
    with refused("row 5 of X has entries that are NaN or infinite"):
        net.encode(x)
    with refused("start has shape .*2, 30.*; expected .*150, 30"):
        net.solve(rows(), torch.zeros(2, K))
