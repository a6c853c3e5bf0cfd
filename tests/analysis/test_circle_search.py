import math

import torch

from zoo.analysis.circle_search import roundest
from zoo.near_neighbours import nearest


def search(rows):
    groups = torch.cat([torch.arange(len(rows)).unsqueeze(1), nearest(rows, 23)[1]], 1)
    return roundest(rows, groups)


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
    assert ring.spread < min(null) / 2


def test_nearest_rows_are_those_of_all_distances():
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    distances, indices = nearest(rows, 4, torch.tensor([3, 50]))
    all_distances = torch.cdist(rows[[3, 50]], rows)
    all_distances[0, 3] = all_distances[1, 50] = torch.inf
    expected = all_distances.topk(4, largest=False)
    assert torch.equal(indices, expected.indices)
    assert torch.allclose(distances, expected.values, atol=1e-5)
