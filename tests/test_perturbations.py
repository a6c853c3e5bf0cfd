"""The divergence that an edit causes, against networks for which it is known and against whole edited runs."""

import pytest
import torch
from pretended_device import DEVICE, PretendedDevice
from small_gpt2 import network
from torch.nn.functional import normalize

from zoo.analysis.local_response import ascend, circle, exponent, fisher_matrix, quadratic
from zoo.errors import ZooError
from zoo.interventions import logits
from zoo.models import CausalLM
from zoo.perturbations import CleanRun, kl_of

V, D, T = 40, 12, 9


class LinearHead:
    """A network without layers that compute: logits = residual stream @ W_U^T, so that the divergence is known."""

    n_layers, context_length = 1, None
    sites = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post")

    def __init__(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        self.W_E = torch.randn(V, D, generator=generator).to(dtype)
        self.W_U = torch.randn(V, D, generator=generator).to(dtype)

    def run(self, input_ids, edits=None, start=None):
        first, x = start or (0, self.W_E[input_ids])
        for name in self.sites[first and 1 :]:
            x = (edits or {}).get(name, lambda x: x)(x)
        return x @ self.W_U.T


@pytest.fixture
def head():
    return LinearHead()


@pytest.fixture
def ids():
    return torch.randint(V, (2, T), generator=torch.Generator().manual_seed(1))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_divergence_of_a_linear_softmax_head_is_the_cumulant_generating_function(head, ids):
    u = normalize(drawn(D), dim=0)
    kl = kl_of(head, 0, ids, lambda x: x + u)
    p, slope = (head.W_E[ids] @ head.W_U.T).softmax(-1), head.W_U @ u  # (B, T, V), (V,)
    exact = (p * slope.exp()).sum(-1).log() - (p * slope).sum(-1)
    torch.testing.assert_close(kl[:, 1:], exact[:, 1:])
    edited = ((head.W_E[ids] + u) @ head.W_U.T).softmax(-1)
    swapped = (edited * (edited / p).log()).sum(-1)
    assert ((swapped - exact).abs() > 0.01 * exact).all()


def test_a_small_change_costs_the_quadratic_form_of_the_fisher_matrix(head, ids):
    clean = CleanRun(head, 0, ids)
    F = fisher_matrix(clean.logits_at(1, 4), torch.zeros(D, dtype=torch.float64))
    p = (head.W_E[ids[1, 4]] @ head.W_U.T).softmax(-1)
    torch.testing.assert_close(F, head.W_U.T @ (torch.diag(p) - p[:, None] * p) @ head.W_U)
    changes = 1e-3 * normalize(drawn(20, D), dim=1)
    torch.testing.assert_close(clean.kl_at(1, 4)(changes), quadratic(F, changes), rtol=5e-3, atol=0)


def test_a_change_along_the_top_eigenvector_costs_as_many_times_an_isotropic_one_as_it_is_said(head, ids):
    clean = CleanRun(head, 0, ids)
    respond, r = clean.kl_at(0, 3), 1e-3
    F = fisher_matrix(clean.logits_at(0, 3), torch.zeros(D, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(F)
    isotropic = respond(r * normalize(drawn(100_000, D), dim=1)).mean()
    torch.testing.assert_close(isotropic, r**2 / 2 * values.sum() / D, rtol=0.02, atol=0)
    ratio = respond(r * vectors[:, -1:].T)[0] / isotropic
    torch.testing.assert_close(ratio, values[-1] * D / values.sum(), rtol=0.02, atol=0)


@pytest.fixture
def model():
    return network(vocab_size=V, context_length=T, n_layers=3)


def test_an_autoencoder_that_changes_nothing_costs_nothing(model, ids):
    for site in (site for site in model.sites if "scale" not in site):
        kl = kl_of(model, site, ids, torch.clone)
        assert kl[:, 0].isnan().all()
        assert (kl[:, 1:] == 0).all(), site


def test_an_edit_of_a_model_in_low_precision_is_made_in_float32(model, ids):
    model, seen = model.bfloat16(), []
    kl = kl_of(model, 1, ids, lambda x: seen.append(x.dtype) or x)
    assert seen == [torch.float32]
    assert (kl[:, 1:] == 0).all()


@pytest.mark.parametrize("site", ["resid_pre", "attn_in", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post"])
def test_one_edited_position_costs_what_an_edited_run_says_there_and_later(model, ids, site):
    site, change = f"blocks.1.hook_{site}", 0.5 * drawn(4, 16).float()
    clean = CleanRun(model, site, ids)
    rows, positions = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 3, 8, 5])
    kl = clean.kl_from(rows, positions, change)
    for i, (row, position) in enumerate(zip(rows.tolist(), positions.tolist(), strict=True)):

        def edit(x, i=i, position=position):
            x = x.clone()
            x[:, position] += change[i]
            return x

        p, q = (logits(model, ids[row : row + 1], edits)[0].log_softmax(-1) for edits in ({}, {site: edit}))
        assert kl[i, :position].isnan().all()
        torch.testing.assert_close(
            kl[i, position:].float(), (p.exp() * (p - q)).sum(-1)[position:], atol=2e-6, rtol=1e-4
        )
        torch.testing.assert_close(clean.kl_at(row, position)(change[i : i + 1])[0], kl[i, position], rtol=1e-3, atol=0)


def test_keys_and_values_of_earlier_positions_are_computed_once_and_give_the_same(model, ids, monkeypatch):
    clean, changes = CleanRun(model, 1, ids), drawn(50, 16).float()
    n_tokens = []
    monkeypatch.setattr(model.transformer.h[2].mlp, "forward", spied(model.transformer.h[2].mlp.forward, n_tokens))
    respond = clean.kl_at(0, 7)
    n_tokens.clear()
    cheap = respond(changes)
    assert n_tokens == [50]
    monkeypatch.setattr(clean, "_past", lambda *_: None)
    whole = clean.kl_at(0, 7)
    n_tokens.clear()
    torch.testing.assert_close(whole(changes), cheap, rtol=1e-3, atol=1e-7)
    assert n_tokens == [50 * 8]


def spied(forward, n_tokens):
    def spy(x):
        n_tokens.append(x.shape[:2].numel())
        return forward(x)

    return spy


def test_the_first_position_and_padding_are_neither_edited_nor_counted_unless_asked_for(model, ids):
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[0, 6:] = False
    kl = kl_of(model, 1, ids, torch.zeros_like, counted=counted)
    assert torch.equal(kl.isnan(), ~counted | (torch.arange(T) == 0))
    other = ids.clone()
    other[0, 6:] = 0
    torch.testing.assert_close(kl_of(model, 1, other, torch.zeros_like, counted=counted), kl, equal_nan=True)
    later = kl_of(model, 1, ids, lambda x: torch.cat([7 + x[:, :1], x[:, 1:]], 1))
    assert (later[:, 1:] == 0).all()
    assert (kl_of(model, 1, ids, torch.zeros_like, skip_positions=0) > 0).all()


def test_the_fisher_matrix_of_a_transformer_is_the_hessian_of_the_divergence(ids):
    clean = CleanRun(network(vocab_size=V, context_length=T).double(), 1, ids)
    F = fisher_matrix(clean.logits_at(0, 5), torch.zeros(16, dtype=torch.float64))
    respond = clean.kl_at(0, 5)
    hessian = torch.autograd.functional.hessian(lambda d: respond(d[None])[0], torch.zeros(16, dtype=torch.float64))
    torch.testing.assert_close(F, hessian)


def test_at_a_tiny_radius_the_exponent_of_a_smooth_network_is_2_and_ascent_ends_at_the_top_eigenvector(ids):
    clean = CleanRun(network(vocab_size=V, context_length=T).double(), 1, ids)
    respond, r = clean.kl_at(0, 5), 1e-4
    for seed in range(5):
        u, v = normalize(drawn(2, 16, seed=seed), dim=1)
        assert exponent(respond(r * circle(u, v)).numpy(), float(u @ v)).mean == pytest.approx(2, abs=0.01)
    F = fisher_matrix(clean.logits_at(0, 5), torch.zeros(16, dtype=torch.float64))
    ends, _ = ascend(respond, drawn(4, 16), r, steps=200)
    assert ((ends @ torch.linalg.eigh(F).eigenvectors[:, -1]).abs() > 0.999).all()


def test_divergences_are_computed_where_the_model_is(ids):
    with PretendedDevice():
        model, ids, changes = network(vocab_size=V).to(DEVICE), ids.to(DEVICE), drawn(3, 16).float().to(DEVICE)
        clean = CleanRun(model, 1, ids, counted=torch.ones_like(ids, dtype=torch.bool))
        for kl in (
            clean.kl(lambda x: x / 2),
            clean.kl_from(torch.tensor([0, 1, 1]), torch.tensor([2, 3, 4]), changes),
            clean.kl_at(0, 5)(changes),
            ascend(clean.kl_at(0, 5), changes, 0.1, steps=2)[1],
            fisher_matrix(clean.logits_at(0, 5), torch.zeros(16).to(DEVICE)),
        ):
            assert kl.device == DEVICE


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "bloom"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_many_changes_of_one_position_cost_the_same_as_runs_of_whole_texts_in_other_models(ids, family, layer):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model(family, **sizes, intermediate_size=32)
    torch.manual_seed(0)
    network = transformers.AutoModelForCausalLM.from_config(config)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3)
    clean, changes = CleanRun(CausalLM(network, family), layer, ids), drawn(6, 16).float()
    rows, positions = torch.zeros(6, dtype=torch.int64), torch.full((6,), 5)
    whole = clean.kl_from(rows, positions, changes)[:, 5]
    torch.testing.assert_close(clean.kl_at(0, 5)(changes), whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda m, ids: kl_of(m, 7, ids, torch.clone), "there is no layer 7; the model has layers 0 to 2"),
        (lambda m, ids: kl_of(m, "blocks.7.hook_resid_pre", ids, torch.clone), "no site blocks.7.hook_resid_pre"),
        (lambda m, ids: kl_of(m, "blocks.1.ln1.hook_scale", ids, torch.clone), "is a scale of a layer norm"),
        (lambda m, ids: kl_of(m, 1, ids, lambda x: x[..., :3]), "returns .*3.; it must be"),
        (lambda m, ids: CleanRun(m, 1, ids).kl_at(0, 0), "position 0 of text 0 is not counted"),
        (lambda m, ids: CleanRun(m, 1, ids).kl_at(0, 2)(torch.zeros(3, 8)), r"must be \(n, 16\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model, ids, call, line):
    with pytest.raises(ZooError, match=line) as error:
        call(model, ids)
    assert "\n" not in str(error.value)
