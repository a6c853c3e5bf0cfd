import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

import zoo
from zoo.metrics import log_probabilities, token_kl, token_nats


def logits(seed, dtype=torch.float32):
    return torch.randn(4, 6, 13, generator=torch.Generator().manual_seed(seed)).to(dtype)


TARGETS = torch.arange(24).view(4, 6) % 13


def test_nats_are_torchs_cross_entropy_and_0_where_a_target_does_not_count():
    targets = TARGETS.masked_fill(TARGETS > 9, -100)
    nats = token_nats(log_probabilities(logits(0)), targets)
    assert (nats[targets == -100] == 0).all()
    expected = F.cross_entropy(logits(0).flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100)
    torch.testing.assert_close(nats.flatten(), expected)


def test_kl_is_that_of_torchs_distributions_and_0_for_the_same_distribution():
    clean, edited = log_probabilities(logits(0)), log_probabilities(logits(1))
    expected = kl_divergence(Categorical(logits=logits(0)), Categorical(logits=logits(1)))
    torch.testing.assert_close(token_kl(clean, edited), expected)
    assert (token_kl(clean, clean) == 0).all()


def test_a_token_that_the_clean_model_rules_out_adds_nothing():
    clean, edited = torch.tensor([1.0, 1, -torch.inf]), torch.tensor([1.0, 1, 1])
    found = token_kl(log_probabilities(clean), log_probabilities(edited))
    torch.testing.assert_close(found, torch.tensor(1.5).log())


def test_half_precision_logits_are_measured_in_float32():
    assert log_probabilities(logits(0, torch.bfloat16)).dtype == torch.float32


def test_on_text_a_language_model_has_the_loss_that_training_minimises():
    model = zoo.load("gpt2-mini.learned")
    windows = torch.randint(2048, (2, 33), generator=torch.Generator().manual_seed(0))
    nats = token_nats(log_probabilities(model(windows[:, :-1])), windows[:, 1:])
    torch.testing.assert_close(nats.sum(), model(windows[:, :-1], windows[:, 1:]))
