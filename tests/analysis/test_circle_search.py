import math

import numpy as np
import torch

from zoo.analysis.circle_search import ring_p_value, roundest
from zoo.analysis.near_neighbours import nearest


def search(rows):
    return roundest(rows, nearest(rows, 23)[1])


def test_a_planted_ring_of_24_is_found_and_gaussians_have_none_as_round():
    null = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        rows = torch.randn(400, 24, generator=g)
        null.append(search(rows)[1].spread)
    angle = 2 * math.pi * torch.arange(24) / 24
    rows[100:124] = 0.05 * rows[100:124] + 4.0  # its members are each other's neighbours
    rows[100:124, :2] += torch.stack([angle.cos(), angle.sin()], 1)
    ring = search(rows)[1]
    assert sorted(ring.members.tolist()) == list(range(100, 124))
    assert ring.spread < 0.1
    assert ring_p_value(ring.spread, null) < 1e-4


def test_p_values_of_a_least_spread_among_gaussians_are_not_small_too_often():
    spreads = [search(torch.randn(120, 16, generator=torch.Generator().manual_seed(s)))[0].spread for s in range(120)]
    p = [ring_p_value(s, np.delete(spreads, i)) for i, s in enumerate(spreads)]
    assert np.mean(np.array(p) <= 0.05) <= 0.1
    assert 0.4 < np.mean(p) < 0.6
    assert math.isnan(ring_p_value(0.1, [0.2, 0.3]))


def test_nearest_rows_are_those_of_all_distances():
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    distances, indices = nearest(rows, 4, torch.tensor([3, 50]))
    all_distances = torch.cdist(rows[[3, 50]], rows)
    all_distances[0, 3] = all_distances[1, 50] = torch.inf
    expected = all_distances.topk(4, largest=False)
    assert torch.equal(indices, expected.indices)
    assert torch.allclose(distances, expected.values, atol=1e-5)
