"""Rows that studies of an embedding set aside."""

import json

import numpy as np
import pytest
import torch

from zoo.shared_tasks.rows import Rows, UntrainedRows
from zoo.source import Source
from zoo.studies.untrained_rows import UntrainedRowsStudy, _details, _reasons, _some
from zoo.study import Work

N, D, UNTRAINED = 600, 24, 60


def matrix(seed=0):
    """Gaussian rows, of which the last are around one centre near the mean."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(N, D, generator=g)
    W[-UNTRAINED:] = 0.3 * torch.randn(D, generator=g) + 0.1 * torch.randn(UNTRAINED, D, generator=g)
    return W


TOKENS = [*(f"word{i}" for i in range(N - UNTRAINED)), *(f"rare{i}" for i in range(UNTRAINED))]
TOKENS[3] = "[unused3]"


def saved(folder, W, counts=None):
    np.save(folder / "W.npy", W.numpy())
    (folder / "W.tokens.json").write_text(json.dumps(TOKENS))
    if counts is not None:
        (folder / "W.token_counts.json").write_text(json.dumps(counts))
    return str(folder / "W.npy")


def judged(folder, *names):
    """Which rows look untrained, and the tasks that read the rows without these and with them."""
    untrained = UntrainedRows(tuple(map(Source.open, names)), None)
    results = {untrained: untrained.do(Work({}, folder))}
    work = Work(results, folder)
    return results[untrained], *(Rows(Source.open(names[0]), None, untrained, keep).do(work) for keep in (False, True))


def subject(found, **settings):
    n_rows = found["n_tokens"] - (0 if settings.get("keep_untrained") else found["untrained"])
    return UntrainedRowsStudy("W.npy", **settings)._subject(found, n_rows) + " " + _details(found)


def test_all_names_that_are_set_aside_are_kept_by_reason_and_the_page_says_how_many_more(tmp_path):
    counts = [9] * N
    counts[7] = 0
    found, _, _ = judged(tmp_path, saved(tmp_path, matrix(), counts))
    assert found["aside"] == {
        "never occur": ["word7"],
        "common cluster": TOKENS[-UNTRAINED:],
        "reserved name": ["[unused3]"],
    }
    told = subject(found)
    assert f"{UNTRAINED + 2} rows look untrained; they were excluded, and {N - UNTRAINED - 2} rows are studied" in told
    assert _reasons(found["aside"]).rows[1] == ["common cluster", UNTRAINED, _some(TOKENS[-UNTRAINED:], 200)]
    assert _some(TOKENS[-UNTRAINED:], 8).startswith("`` rare0 ``, `` rare8 ``")
    assert _some(TOKENS[-UNTRAINED:], 8).endswith("and 52 more")
    assert "No random start was detected, so rows were kept unless another criterion applies." in told


def test_rows_after_those_of_the_tokens_belong_to_no_token_and_never_occur(tmp_path):
    np.save(tmp_path / "W.npy", torch.randn(N, D, generator=torch.Generator().manual_seed(0)).numpy())
    (tmp_path / "W.tokens.json").write_text(json.dumps([f"word{i}" for i in range(N - 5)]))
    found, aside, every = judged(tmp_path, str(tmp_path / "W.npy"))
    assert found["aside"] == {"never occur": [f"row {i}" for i in range(N - 5, N)]}
    assert aside["tokens"] == [f"word{i}" for i in range(N - 5)]
    assert len(aside["W_E"]) == N - 5
    assert every["tokens"][-6:] == [f"word{N - 6}", *(f"row {i}" for i in range(N - 5, N))]


def test_rows_tokens_and_counts_stay_together_when_some_are_set_aside(tmp_path):
    counts = list(range(1, N + 1))
    _, aside, every = judged(tmp_path, saved(tmp_path, matrix(), counts))
    assert np.array_equal(every["W_E"], matrix().numpy())
    assert every["tokens"] == TOKENS
    assert every["counts"].tolist() == counts
    kept = [i for i in range(N - UNTRAINED) if i != 3]
    assert np.array_equal(aside["W_E"], matrix()[kept].numpy())
    assert aside["tokens"] == [TOKENS[i] for i in kept]
    assert aside["counts"].tolist() == [counts[i] for i in kept]


def test_where_nothing_is_set_aside_the_rows_are_the_same_and_what_is_kept_is_told(tmp_path):
    found, _, every = judged(tmp_path, saved(tmp_path, matrix()))
    assert found["untrained"] == UNTRAINED + 1
    assert len(every["W_E"]) == N
    assert "they were kept" in subject(found, keep_untrained=True)
    np.save(tmp_path / "g.npy", torch.randn(N, D, generator=torch.Generator().manual_seed(0)).numpy())
    found, aside, every = judged(tmp_path, str(tmp_path / "g.npy"))
    assert np.array_equal(aside["W_E"], every["W_E"])
    assert (found["untrained"], found["aside"]) == (0, {})
    expected = (
        "No row looks untrained. No common cluster of untrained rows and no random start was detected, so rows were"
    )
    assert expected in subject(found)


def test_a_row_that_is_untrained_in_one_run_is_set_aside_in_all(tmp_path):
    other = matrix(1)
    other[-UNTRAINED:] = torch.randn(UNTRAINED, D, generator=torch.Generator().manual_seed(0))
    (tmp_path / "b").mkdir()
    names = [saved(tmp_path, matrix()), saved(tmp_path / "b", other)]
    found, _, _ = judged(tmp_path, *names)
    assert found["aside"]["common cluster"] == TOKENS[-UNTRAINED:]
    assert found["cluster_found"] == [True, False]
    found, aside, _ = judged(tmp_path, *names[::-1])
    assert np.array_equal(aside["W_E"], np.delete(other.numpy(), [3, *range(N - UNTRAINED, N)], 0))


@pytest.mark.parametrize("name", ["gpt2-mini.learned", "gpt2-stdlib.learned"])
def test_only_tokens_that_hardly_ever_occur_are_set_aside_in_the_zoos_own(name, tmp_path):
    found, _, _ = judged(tmp_path, name)
    source = Source.open(name)
    counts, names = source.token_counts(), source.token_strings()
    aside = {name for names in found["aside"].values() for name in names}
    assert {token for token, count in zip(names, counts, strict=True) if count == 0} <= aside
    assert all(count <= 15 for token, count in zip(names, counts, strict=True) if token in aside)


def test_too_few_rows_are_refused(tmp_path, refused):
    np.save(tmp_path / "few.npy", torch.randn(30, D).numpy())
    with refused("has 30 rows in 24 dimensions; at least 40 rows in 4 dimensions are required"):
        judged(tmp_path, str(tmp_path / "few.npy"))
