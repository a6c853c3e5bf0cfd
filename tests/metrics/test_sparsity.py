import math

import pytest
import torch

from zoo.metrics import L0, FiringFrequency, dead_share, dense_share

CODES = torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.5, 0.0, 0.0, 0.0], [3.0, 0.0, 1.0, 0.0]])


def test_l0_is_the_mean_number_of_nonzero_codes():
    l0 = L0()
    l0.update(CODES[:1])
    l0.update(CODES[:0])
    l0.update(CODES[1:])
    assert l0.compute().item() == pytest.approx(5 / 3)
    l0.reset()
    l0.update(CODES, torch.tensor([1.0, 2.0, 1.0]))
    assert l0.compute().item() == 6 / 4


def test_l0_counts_negative_codes_and_codes_that_are_bfloat16():
    l0 = L0()
    l0.update(torch.full((3, 1000), -1e-3, dtype=torch.bfloat16))
    assert l0.compute().item() == 1000


def test_firing_frequency_is_each_latents_share_of_rows():
    frequency = FiringFrequency(4)
    frequency.update(CODES[:2])
    frequency.update(CODES[2:])
    assert frequency.compute().tolist() == pytest.approx([1, 0, 2 / 3, 0])
    assert frequency.compute().sum().item() == pytest.approx(5 / 3)


def test_dead_latents_never_fire_and_dense_ones_fire_above_the_threshold():
    frequency = torch.tensor([0.0, 0.0, 1e-9, 0.1, 0.11, 1.0, 0.5, 0.05], dtype=torch.float64)
    assert dead_share(frequency).item() == 2 / 8
    assert dense_share(frequency).item() == 3 / 8
    assert dense_share(frequency, above=0.5).item() == 1 / 8


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_rows_and_broken_codes_give_nan():
    codes = CODES.clone()
    codes[1, 1] = math.nan
    for batch in (CODES[:0], codes):
        l0, frequency = L0(), FiringFrequency(4)
        l0.update(batch)
        frequency.update(batch)
        assert l0.compute().isnan()
        assert dead_share(frequency.compute()).isnan()
        assert dense_share(frequency.compute()).isnan()
