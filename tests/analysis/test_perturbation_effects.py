"""Effects of changes along features, in networks and autoencoders for which they are known."""

import numpy as np
import pytest
import torch
from small_gpt2 import network
from torch.nn.functional import normalize

from zoo.analysis.document_tests import ratio_of_means
from zoo.analysis.perturbation_effects import (
    ENDS,
    ERRORS,
    EXCHANGES,
    PAIRS,
    SUPPORT,
    Subject,
    draw_tokens,
    error_effects,
    exchange_effects,
    sphere_effects,
    support_effects,
)
from zoo.estimates import UNKNOWN
from zoo.models import TopKSAE

V, D, K, N, T = 40, 8, 24, 12, 9


class Head:
    """A network whose logits are the residual stream times W_U^T; a small stream gives nearly equal probabilities."""

    n_layers, context_length = 1, None
    sites = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post")

    def __init__(self, W_U, size):
        self.W_E, self.W_U = size * drawn(V, D, seed=3), W_U

    def run(self, input_ids, edits=None, start=None):
        first, x = start or (0, self.W_E[input_ids])
        for name in self.sites[first and 1 :]:
            x = (edits or {}).get(name, lambda x: x)(x)
        return x @ self.W_U.T


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def ids():
    return torch.randint(V, (N, T), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sae():
    torch.manual_seed(0)
    return TopKSAE(D, K, k=4).double().requires_grad_(False)


@pytest.fixture
def even(ids, sae):
    """A subject for which the divergence is the same in all directions: its Fisher matrix is proportional to 1."""
    model = Head(torch.eye(D).double().repeat(5, 1) - 1 / D, 1e-3)
    model.W_U[: 5 * D] = torch.cat([torch.eye(D), -torch.eye(D)] * 3)[: 5 * D]
    return Subject(model, model.sites[0], ids, sae.reconstruct, sae.W_dec)


def test_the_error_of_an_identity_has_no_effect_and_no_ratio(ids):
    model = network(vocab_size=V, d_model=D)
    subject = Subject(model, "blocks.1.hook_resid_pre", ids, lambda x: (x, x.relu()), torch.eye(D))
    found = error_effects(subject, *draw_tokens(10, N, T, 0), 0)
    assert not found["all"].any()
    assert not found["at"].any()
    assert not found["after"].any()
    rows = draw_tokens(10, N, T, 0)[0]
    assert [ratio_of_means(found["at"][0], other, rows) for other in found["at"][1:]] == [UNKNOWN] * 4


def test_errors_that_are_gaussian_have_the_effect_of_covariance_matched_ones():
    model = network(vocab_size=V, d_model=16)
    ids = torch.randint(V, (40, 12), generator=torch.Generator().manual_seed(2))
    root, generator = (0.3 * drawn(16, 16) * torch.arange(1, 17) ** -1.0).float(), torch.Generator().manual_seed(5)

    def noisy(x):
        return x + torch.randn(x.shape, generator=generator) @ root.T, x.relu()

    subject = Subject(model, "blocks.1.hook_resid_pre", ids, noisy, torch.eye(16))
    rows, positions = draw_tokens(200, 40, 12, 0)
    found = error_effects(subject, rows, positions, 0)
    documents = np.repeat(np.arange(40), 11)
    for values, where in ((found["all"].reshape(5, -1), documents), (found["at"], rows)):
        for kind in ("covariance-matched", "errors of other tokens"):
            assert 1 in ratio_of_means(values[0], values[ERRORS.index(kind)], where)
    isotropic = ratio_of_means(found["all"][0].ravel(), found["all"][1].ravel(), documents)
    assert 1 not in isotropic  # the noise has directions of its own


def test_if_all_directions_are_alike_every_change_of_equal_norm_has_the_same_effect(even):
    tokens = draw_tokens(30, N, T, 0)
    errors, exchanged = error_effects(even, *tokens, 0), exchange_effects(even, *tokens, 0)
    support = support_effects(even, *tokens, (0.1, 0.5), (0.5,), 0)
    for values in (*errors["all"], errors["at"][1:], support["kl"], exchanged["kl"]):
        assert np.isfinite(values).all()
    for kinds in (errors["all"].mean((1, 2)), errors["at"].mean(1), *support["kl"].mean(2), exchanged["kl"].mean(1)):
        np.testing.assert_allclose(kinds, kinds[0], rtol=0.05)
    assert [len(kinds) for kinds in (errors["all"], support["kl"][0], support["exponents"][0], exchanged["kl"])] == [
        *(len(ERRORS), len(SUPPORT), len(PAIRS), len(EXCHANGES))
    ]
    np.testing.assert_allclose(support["exponents"], 2, atol=0.05)
    np.testing.assert_allclose(errors["after"], 0, atol=1e-12)  # no position reads another one


def test_codes_on_orthogonal_atoms_keep_their_support_and_others_need_not(even):
    def signed_parts(x):
        return x, torch.cat([x.relu(), (-x).relu()], -1)

    tokens = draw_tokens(30, N, T, 0)
    orthogonal = even._replace(reconstruct=signed_parts, W_dec=torch.cat([torch.eye(D), -torch.eye(D)]).double())
    assert support_effects(orthogonal, *tokens, (0.1, 1.0), (0.5,), 0)["keeps"].all()
    assert not support_effects(even, *tokens, (1.0,), (0.5,), 0)["keeps"].all()


def test_on_a_small_sphere_ascent_ends_at_the_largest_eigenvector_and_nothing_exceeds_the_quadratic_form(ids, sae):
    model = Head(drawn(V, D) * torch.tensor([4.0, *[1.0] * (D - 1)]), 0.1)
    subject = Subject(model, model.sites[0], ids, sae.reconstruct, sae.W_dec)
    radii = (0.001, 0.01)
    found = sphere_effects(subject, sae.W_dec, *draw_tokens(4, N, T, 0), radii, 200, 10, 3, 0.01, 40, 0)
    np.testing.assert_allclose(found["kl"] / found["quadratic"], 1, rtol=0.02)
    np.testing.assert_allclose(found["ends"][ENDS.index("largest eigenvector")], 1, atol=1e-3)
    np.testing.assert_allclose(found["ends"][ENDS.index("null twin")], found["ends"][ENDS.index("atoms")])
    assert (found["end_kl"] > found["best_kl"]).all()
    assert (found["each"], found["kl"].shape) == (100, (2, 7, 4))
    assert ((found["share"] >= 0) & (found["share"] <= 1)).all()


def test_without_a_null_twin_what_concerns_it_is_unknown(even):
    found = sphere_effects(even, None, *draw_tokens(2, N, T, 0), (0.1,), 30, 5, 2, 0.1, 3, 0)
    assert np.isnan(found["share"][:, 3]).all()
    assert np.isnan(found["ends"][ENDS.index("null twin")]).all()
    assert np.isfinite(found["share"][:, :3]).all()


def test_an_atom_along_which_the_response_is_largest_is_above_all_random_directions(ids):
    model = Head(drawn(V, D) * torch.tensor([9.0, *[1.0] * (D - 1)]), 0.1)
    W_dec = torch.eye(D).double()[:2]
    subject = Subject(model, model.sites[0], ids, lambda x: (x, torch.ones(len(x), 2).double()), W_dec)
    found = sphere_effects(subject, None, *draw_tokens(2, N, T, 0), (0.01,), 200, 5, 2, 0.01, 3, 0)
    assert (found["share"][0, 0, 0] == 0.5).all()  # the other atom is below all random directions
    only = subject._replace(W_dec=W_dec[:1].repeat(2, 1))
    found = sphere_effects(only, None, *draw_tokens(2, N, T, 0), (0.01,), 200, 5, 2, 0.01, 3, 0)
    np.testing.assert_allclose(found["share"][0, 0, 0], 1, atol=0.03)


def test_tokens_are_neither_the_first_nor_the_last_of_a_text_and_are_drawn_once():
    rows, positions = draw_tokens(4 * 7, 4, T, 0)
    assert len({*zip(rows.tolist(), positions.tolist(), strict=True)}) == 28
    assert set(positions.tolist()) == set(range(1, T - 1))
    assert draw_tokens(6, 4, T, 0)[0].bincount().tolist() == [2, 2, 1, 1]


def test_wrong_input_is_refused(even, refused):
    with refused("29 tokens are asked for, and 4 documents of 9 tokens have 28"):
        draw_tokens(29, 4, T, 0)
    tokens = draw_tokens(6, N, T, 0)
    with refused("negative codes"):
        support_effects(even._replace(reconstruct=lambda x: (x, -torch.ones(len(x), K))), *tokens, (0.1,), (0.5,), 0)
    one_active = torch.eye(K)[:1].double()
    with refused("at least two active atoms"):
        exchange_effects(even._replace(reconstruct=lambda x: (x, one_active.expand(len(x), K))), *tokens, 0)


def test_atoms_of_the_null_model_of_the_exponent_are_as_many(even):
    found = support_effects(even, *draw_tokens(6, N, T, 0), (0.1,), (0.5,), 0)
    unit = normalize(even.W_dec, dim=1)
    assert (np.abs(found["cosines"]) <= 1).all()
    assert (np.abs(found["cosines"][0]) < float((unit @ unit.T - torch.eye(K)).abs().max())).all()
