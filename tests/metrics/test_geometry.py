import numpy as np
import pytest
import torch

from zoo.metrics import feature_dimensionality


def polygon(n):
    angles = 2 * np.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angles.cos(), angles.sin()], 1)


SQUARE = polygon(4)
TURNED = torch.stack([SQUARE[:, 0] - SQUARE[:, 1], SQUARE[:, 0] + SQUARE[:, 1]], 1) / 2**0.5
# Two squares, one turned by 45 degrees, at heights that spread the eight features evenly over three dimensions.
ANTIPRISM = torch.cat(
    [
        torch.cat([square, height * torch.ones(4, 1)], 1)
        for square, height in ((SQUARE, 0.5**0.5), (TURNED, -(0.5**0.5)))
    ]
)


@pytest.mark.parametrize(
    ("W", "share"),
    [
        (torch.eye(4), 1),
        (torch.tensor([[1.0], [-1.0]]), 1 / 2),
        (polygon(3), 2 / 3),
        (polygon(5), 2 / 5),
        (polygon(6), 1 / 3),
        (ANTIPRISM.double(), 3 / 8),
    ],
    ids=["orthogonal", "antipodal", "triangle", "pentagon", "hexagon", "square antiprism"],
)
def test_regular_shapes_share_their_dimensions_equally_at_any_size(W, share):
    expected = torch.full((len(W),), float(share), dtype=W.dtype)
    for size in (1e-3, 1.0, 7.0):
        torch.testing.assert_close(feature_dimensionality(size * W), expected)


def test_features_never_have_more_dimensions_than_there_are():
    generator = torch.Generator().manual_seed(0)
    for rank in (1, 2, 5):
        W = torch.randn(50, 12, rank, generator=generator) @ torch.randn(50, rank, 5, generator=generator)
        shares = feature_dimensionality(W)
        assert shares.shape == (50, 12)
        assert (shares.sum(1) <= rank + 1e-4).all()
        assert (shares > 0).all()
        assert (shares <= 1).all()


def test_a_feature_that_is_not_represented_has_no_dimension_and_takes_none():
    W = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    assert feature_dimensionality(W).tolist() == [0, 1, 0, 1]


def test_an_orthogonal_map_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    torch.testing.assert_close(feature_dimensionality(W @ turn), feature_dimensionality(W))
