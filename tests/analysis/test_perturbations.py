"""Controls of equal norm, and changes of codes, against what they promise and against exact moments."""

import pytest
import torch
from pretended_device import DEVICE, PretendedDevice
from scipy import stats
from torch.nn.functional import normalize

from zoo.analysis.local_response import quadratic, share_below
from zoo.analysis.perturbations import (
    covariance_matched,
    gaussian_of,
    in_active_span,
    isotropic,
    keeps_support,
    l0_preserving,
    mean_squares,
    mixture,
    of_other_tokens,
    on_inactive_atoms,
    permuted_atoms,
    with_values_of_other_tokens,
)
from zoo.errors import ZooError
from zoo.null_models import with_norms_of

N, D, K = 300, 10, 25


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@pytest.fixture
def codes():
    on = (torch.rand(N, K, generator=generator(1)) < 0.2) | torch.eye(K, dtype=torch.bool).repeat(N // K, 1)
    return torch.where(on, drawn(N, K).abs() + 0.1, 0.0)


@pytest.fixture
def W_dec():
    return normalize(drawn(K, D, seed=2), dim=1)


def test_every_control_has_the_norm_of_the_change_that_it_is_compared_with(codes, W_dec):
    changes = drawn(N, D) * torch.logspace(-3, 3, N)[:, None]
    changes[7] = 0
    fitted = gaussian_of(drawn(500, D) + 2)
    controls = {
        "isotropic": isotropic(changes, generator()),
        "covariance-matched": covariance_matched(changes, fitted, generator()),
        "mixture": mixture(changes, fitted, generator()),
        "span": in_active_span(changes, codes, W_dec, generator()),
    }
    for name, control in controls.items():
        assert (control[7] == 0).all()
        torch.testing.assert_close(control.norm(dim=1), changes.norm(dim=1), rtol=1e-6, atol=0, msg=name)
    changes[7] = 1
    others = of_other_tokens(changes, generator())
    torch.testing.assert_close(others.norm(dim=1), changes.norm(dim=1), rtol=1e-6, atol=0)
    same = normalize(others, dim=1) @ normalize(changes, dim=1).T
    assert same.argmax(1).sort().values.tolist() == list(range(N))
    assert (same.argmax(1) != torch.arange(N)).all()


def test_a_gaussian_has_the_mean_and_covariance_of_the_rows(W_dec):
    rows = drawn(1000, K) @ W_dec + 3
    fitted = gaussian_of(rows)
    torch.testing.assert_close(fitted.mean, rows.mean(0))
    torch.testing.assert_close(fitted.root.T @ fitted.root, torch.cov(rows.T, correction=0), rtol=1e-4, atol=1e-4)
    assert (gaussian_of(rows[:, :1] * torch.ones(D)).root.shape) == (1, D)
    draws = fitted.draw(100_000, generator())
    torch.testing.assert_close(draws.mean(0), fitted.mean, rtol=0, atol=0.05)


def test_the_mean_of_the_activations_has_no_effect_on_a_mixture_and_has_one_on_a_gaussian():
    rows, changes = drawn(500, D), torch.ones(5000, D)
    near, far = (gaussian_of(rows + shift * torch.eye(D)[0]) for shift in (0, 50))
    torch.testing.assert_close(
        mixture(changes, near, generator()), mixture(changes, far, generator()), atol=1e-3, rtol=0
    )
    assert covariance_matched(changes, far, generator())[:, 0].mean() > 0.99 * D**0.5


def test_directions_of_a_gaussian_have_the_squares_that_the_integral_gives():
    s = torch.arange(1, 65).double() ** -2
    found = mean_squares(s)
    assert found[0].item() == pytest.approx(0.444, abs=5e-4)
    assert (s[0] / s.sum()).item() == pytest.approx(0.614, abs=5e-4)
    assert found.sum().item() == pytest.approx(1, abs=1e-10)
    torch.testing.assert_close(mean_squares(7 * torch.ones(5)), torch.full((5,), 0.2, dtype=torch.float64))
    assert mean_squares(torch.tensor([0.0, 3.0])).tolist() == pytest.approx([0, 1])
    u = normalize(drawn(200_000, 64).double() * s.sqrt(), dim=1)
    torch.testing.assert_close(u.square().mean(0), found, rtol=0.02, atol=0)


def test_the_mean_cost_of_covariance_matched_changes_is_that_of_the_integral():
    axes = torch.linalg.qr(drawn(D, D)).Q.double()
    s, A, r = torch.logspace(0, -3, D).double(), drawn(D, D, seed=3).double(), 0.3
    F = A @ A.T + 50 * axes[:, :1] @ axes[:, :1].T
    rows = drawn(2000, D).double() * s.sqrt() @ axes.T
    covariance = torch.cov((rows - rows.mean(0)).T, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    changes = mixture(torch.full((100_000, D), r / D**0.5), gaussian_of(rows.float()), generator())
    expected = r**2 / 2 * (vectors.T @ F @ vectors).diag() @ mean_squares(values)
    assert quadratic(F, changes.double()).mean().item() == pytest.approx(expected.item(), rel=0.01)
    assert expected.item() != pytest.approx((r**2 / 2 * F.trace() / D).item(), rel=0.1)


def test_errors_that_are_drawn_like_the_control_have_uniform_p_values():
    A, fitted = drawn(D, D, seed=3), gaussian_of(drawn(2000, D) * torch.logspace(0, -2, D) + 0.3)
    ones = torch.ones(400, D)
    errors = covariance_matched(ones, fitted, generator(1))
    controls = covariance_matched(torch.ones(20_000, D), fitted, generator(2))
    shares = share_below(quadratic(A @ A.T, errors), quadratic(A @ A.T, controls))
    assert stats.kstest(shares, "uniform").pvalue > 0.01
    others = share_below(quadratic(A @ A.T, isotropic(ones, generator(3))), quadratic(A @ A.T, controls))
    assert stats.kstest(others, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("size", [0.01, 0.3, 1.0])
def test_changes_that_preserve_l0_keep_support_and_signs_and_have_the_norm(codes, W_dec, size):
    norms = size * (codes @ W_dec).norm(dim=1)
    delta = l0_preserving(codes, W_dec, norms, generator())
    assert torch.equal(codes + delta > 0, codes > 0)
    assert (delta[codes == 0] == 0).all()
    torch.testing.assert_close((delta @ W_dec).norm(dim=1), norms, rtol=1e-5, atol=0)
    assert ((delta < 0).any(1) & (delta > 0).any(1)).double().mean() > 0.2


def test_rows_without_an_active_atom_stay_as_they_are(codes, W_dec):
    codes[3] = 0
    delta = l0_preserving(codes, W_dec, torch.ones(N), generator())
    assert (delta[3] == 0).all()
    assert delta.isfinite().all()


def test_whether_encoding_again_selects_the_same_atoms_is_what_it_says():
    def reconstruct(x):  # orthogonal atoms read with a threshold
        codes = torch.where(x > 0.5, x, 0.0)
        return codes, codes

    codes = torch.tensor([[1.0, 0.0], [0.4, 1.0], [2.0, 3.0]])
    assert keeps_support(reconstruct, codes, codes).tolist() == [True, False, True]


def test_changes_in_the_span_of_the_active_atoms_are_isotropic_there(W_dec):
    codes = torch.zeros(20_000, K)
    codes[:, :3] = 1
    changes = in_active_span(torch.ones(len(codes), D), codes, W_dec, generator())
    basis = torch.linalg.qr(W_dec[:3].T).Q
    torch.testing.assert_close(changes @ basis @ basis.T, changes, atol=1e-5, rtol=0)
    moments = (changes @ basis).T @ (changes @ basis) / len(codes)
    torch.testing.assert_close(moments, D / 3 * torch.eye(3), atol=0.15, rtol=0)


def test_the_permuted_decoder_has_the_same_atoms_none_of_them_in_place(W_dec):
    permuted = permuted_atoms(W_dec, generator())
    place = (permuted @ W_dec.T).argmax(1)
    assert place.sort().values.tolist() == list(range(K))
    assert (place != torch.arange(K)).all()
    first = {int((permuted_atoms(W_dec, generator(seed)) @ W_dec.T).argmax(1)[0]) for seed in range(300)}
    assert first == set(range(1, K))


def test_changes_move_to_as_many_inactive_atoms(codes, W_dec):
    delta = l0_preserving(codes, W_dec, torch.ones(N), generator())
    small = (codes != 0).sum(1) <= K // 2
    delta, codes = delta[small], codes[small]
    moved = on_inactive_atoms(delta, codes, generator())
    assert (moved[codes != 0] == 0).all()
    torch.testing.assert_close(moved.sort(1).values, delta.sort(1).values)
    with pytest.raises(ZooError, match="more active atoms than inactive"):
        on_inactive_atoms(torch.ones(1, 3), torch.ones(1, 3), generator())


def test_values_of_another_token_keep_the_support(codes):
    other = with_values_of_other_tokens(codes, generator())
    assert torch.equal(other != 0, codes != 0)
    assert not (other == codes).all(1).any()
    twice = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    found = with_values_of_other_tokens(twice, generator())
    assert found[0].tolist() == [5, 5, 5, 0]
    assert found[1, 3].item() in (1, 2, 3)


def test_wrong_directions_and_wrong_codes_can_be_compared_at_equal_norm(codes, W_dec):
    wrong_codes = (with_values_of_other_tokens(codes, generator()) - codes) @ W_dec
    wrong_directions = with_norms_of(codes @ (permuted_atoms(W_dec, generator()) - W_dec), wrong_codes)
    torch.testing.assert_close(wrong_directions.norm(dim=1), wrong_codes.norm(dim=1), rtol=1e-6, atol=0)


def test_changes_are_made_where_the_tensors_are(codes, W_dec):
    expected = {name: change.clone() for name, change in all_changes(codes, W_dec).items()}
    with PretendedDevice():
        for name, change in all_changes(codes.to(DEVICE), W_dec.to(DEVICE)).items():
            assert change.device == DEVICE, name
            torch.testing.assert_close(change.cpu(), expected[name].cpu())


def all_changes(codes, W_dec):
    x = codes @ W_dec
    delta = l0_preserving(codes, W_dec, x.norm(dim=1), generator())
    fewer = (codes != 0).sum(1) <= K // 2
    return {
        "isotropic": isotropic(x, generator()),
        "covariance-matched": covariance_matched(x, gaussian_of(x), generator()),
        "mixture": mixture(x, gaussian_of(x), generator()),
        "other tokens": of_other_tokens(x, generator()),
        "L0-preserving": delta,
        "span": in_active_span(x, codes, W_dec, generator()),
        "permuted": permuted_atoms(W_dec, generator()),
        "inactive": on_inactive_atoms(delta[fewer], codes[fewer], generator()),
        "values": with_values_of_other_tokens(codes, generator()),
        "support": keeps_support(lambda x: (x, x @ W_dec.T), x, codes),
        "squares": mean_squares(x[0].abs()),
    }


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: l0_preserving(-torch.ones(2, K), torch.ones(K, D), torch.ones(2), generator()), "codes are negative"),
        (lambda: l0_preserving(torch.ones(2, K), torch.ones(K, D), torch.zeros(2), generator()), "must be positive"),
        (lambda: of_other_tokens(torch.ones(1, D), generator()), "only one row"),
        (lambda: with_values_of_other_tokens(torch.eye(3)[[0, 1]] * torch.tensor([[0], [1]]), generator()), "row 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, line):
    with pytest.raises(ZooError, match=line):
        call()
