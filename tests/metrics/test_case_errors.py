import numpy as np
import pytest
import torch

from zoo.metrics import CaseErrors
from zoo.metrics.case_errors import EDGES

SEEDS = 3
NAMES = ("n", "mean", "rms", "bias", "right", "max")


def drawn(batch=40, gates=7, seed=0):
    """Errors, some of them beyond the histogram, and cases."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(SEEDS, batch, gates, generator=g), torch.randint(4, (SEEDS, batch, gates), generator=g)


def judged(*batches, within=0.25):
    metric = CaseErrors(SEEDS, within)
    for error, case in batches:
        metric.update(error, case.to(torch.uint8))
    return metric.compute()


def by_hand(error, case, within=0.25):
    """One number at a time."""
    error, found = error.double().numpy(), {name: np.full((SEEDS, 4), np.nan) for name in NAMES}
    for seed in range(SEEDS):
        for c in range(4):
            e = error[seed][case[seed].numpy() == c]
            found["n"][seed, c] = len(e)
            if len(e):
                found["mean"][seed, c], found["rms"][seed, c] = np.abs(e).mean(), np.sqrt((e**2).mean())
                found["bias"][seed, c], found["right"][seed, c] = e.mean(), (np.abs(e) < within).mean()
                found["max"][seed, c] = np.abs(e).max()
    return found


@pytest.mark.parametrize("within", [0.25, 1.0])
def test_errors_are_counted_by_seed_and_case(within):
    found, expected = judged(drawn(), within=within), by_hand(*drawn(), within)
    for name in NAMES:
        assert found[name].tolist() == [pytest.approx(row, rel=1e-5) for row in expected[name].tolist()]
        assert found[name].dtype == torch.float64


def test_the_histogram_of_a_case_is_over_all_seeds_and_its_ends_hold_what_is_beyond():
    error, case = drawn(400)
    assert error.abs().max() > 2
    for c, bins in enumerate(judged((error, case))["bins"]):
        edges = EDGES.double().numpy().copy()
        edges[[0, -1]] = -np.inf, np.inf
        expected, _ = np.histogram(error[case == c].double().numpy(), edges)
        assert bins.tolist() == expected.tolist()


def test_batches_add_up():
    one, other = drawn(30), drawn(11, seed=1)
    together = tuple(torch.cat(pair, 1) for pair in zip(one, other, strict=True))
    apart, whole = judged(one, other), judged(together)
    for name, values in whole.items():
        torch.testing.assert_close(apart[name], values, rtol=1e-5, atol=1e-7)
    largest = torch.stack([judged(batch)["max"] for batch in (one, other)]).amax(0)
    assert torch.equal(apart["max"], largest)


def test_a_batch_without_vectors_changes_nothing():
    empty = torch.zeros(SEEDS, 0, 7), torch.zeros(SEEDS, 0, 7, dtype=torch.int64)
    with_empty, without = judged(empty, drawn(), empty), judged(drawn())
    for name, values in without.items():
        assert torch.equal(with_empty[name], values)


def test_a_case_that_does_not_occur_has_no_error():
    error, case = drawn()
    case[1][case[1] == 3] = 0
    found = judged((error, case))
    assert found["n"][1, 3] == 0
    for name in NAMES[1:]:
        assert found[name].isnan().nonzero().tolist() == [[1, 3]]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_errors_nothing_is_known():
    found = CaseErrors(SEEDS).compute()
    assert not found["n"].any()
    assert all(found[name].isnan().all() for name in NAMES[1:])


def test_a_reset_forgets_the_largest_error_too():
    metric = CaseErrors(SEEDS)
    error, case = drawn()
    metric.update(100 * error, case)
    metric.reset()
    metric.update(error, case)
    for name, values in judged((error, case)).items():
        assert torch.equal(metric.compute()[name], values)


def test_millions_of_equal_errors_have_that_error_as_their_mean():
    metric = CaseErrors(1)
    metric.update(torch.full((1, 2000, 1000), 0.1), torch.zeros(1, 2000, 1000, dtype=torch.uint8))
    found = metric.compute()
    assert [found[name][0, 0].item() for name in ("mean", "rms", "bias")] == pytest.approx([0.1] * 3, rel=1e-4)


def test_a_network_that_is_always_right_is_right_however_many_gates_it_has():
    metric, n = CaseErrors(1), 2**24 + 2**22
    metric.update(torch.zeros(1, 1, 1).expand(1, n, 1), torch.zeros(1, 1, 1, dtype=torch.uint8).expand(1, n, 1))
    assert metric.compute()["right"][0, 0].item() == 1
