"""Rows that the study sets aside."""

import json

import numpy as np
import pytest
import torch

from zoo import sources
from zoo.studies.embedding import rows
from zoo.studies.embedding.sections import _subject

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


def subject(prepared, **settings):
    done = {"rows": prepared, "settings": {"sources": ["W.npy"]}, "steps": [None]}
    return _subject(done)


def test_all_names_that_are_set_aside_are_kept_by_reason_and_the_page_says_how_many_more(tmp_path):
    counts = [9] * N
    counts[7] = 0
    prepared = rows.prepare(tmp_path / "out", [saved(tmp_path, matrix(), counts)], [None])
    assert prepared["aside"] == {
        "never occur": ["word7"],
        "common cluster": TOKENS[-UNTRAINED:],
        "reserved name": ["[unused3]"],
    }
    assert json.loads((tmp_path / "out" / "rows" / "rows.json").read_text())["aside"] == prepared["aside"]
    told = subject(prepared)
    assert f"{UNTRAINED + 2} rows look untrained; they were set aside, and {N - UNTRAINED - 2} rows are studied" in told
    assert f"common cluster {UNTRAINED} (`` rare0 ``, `` rare8 ``" in told
    assert "and 52 more)" in told
    assert "No random start stands out, so rows were kept where nothing else decides." in told


def test_the_rows_of_the_last_step_are_also_there_with_none_set_aside(tmp_path):
    counts = list(range(1, N + 1))
    prepared = rows.prepare(tmp_path / "out", [saved(tmp_path, matrix(), counts)], [None])
    (place,) = prepared["patterns_all"]
    assert torch.equal(sources.embedding(place), matrix())
    assert sources.token_strings(place) == TOKENS
    assert sources.token_counts(place).tolist() == counts
    kept = [i for i in range(N - UNTRAINED) if i != 3]
    (place,) = prepared["patterns"]
    assert torch.equal(sources.embedding(place), matrix()[kept])
    assert sources.token_strings(place) == [TOKENS[i] for i in kept]
    assert sources.token_counts(place).tolist() == [counts[i] for i in kept]
    assert rows.prepare(tmp_path / "out", [str(tmp_path / "W.npy")], [None]) == prepared  # which is read, not made


def test_where_nothing_is_set_aside_or_all_is_kept_the_rows_are_the_same(tmp_path):
    source = saved(tmp_path, matrix())
    kept = rows.prepare(tmp_path / "kept", [source], [None], keep_all=True)
    assert kept["patterns_all"] == kept["patterns"]
    assert kept["untrained"] == UNTRAINED + 1
    assert "they were kept" in subject(kept)
    np.save(tmp_path / "g.npy", torch.randn(N, D).numpy())
    none = rows.prepare(tmp_path / "none", [str(tmp_path / "g.npy")], [None])
    assert none["patterns_all"] == none["patterns"]
    assert (none["untrained"], none["aside"]) == (0, {})
    expected = (
        "No row looks untrained. No common cluster of untrained rows and no random start stands out, so rows were"
    )
    assert expected in subject(none)


def test_a_study_begun_when_other_rows_were_set_aside_is_refused(tmp_path, refused):
    source = saved(tmp_path, matrix())
    rows.prepare(tmp_path / "out", [source], [None])
    file = tmp_path / "out" / "rows" / "rows.json"
    before = json.loads(file.read_text())
    del before["aside"]
    file.write_text(json.dumps(before))
    with refused("was begun when other rows were called untrained; choose another --out, or delete it"):
        rows.prepare(tmp_path / "out", [source], [None])


def test_a_row_that_is_untrained_in_one_run_is_set_aside_in_all(tmp_path):
    other = matrix(1)
    other[-UNTRAINED:] = torch.randn(UNTRAINED, D)
    (tmp_path / "b").mkdir()
    sources_ = [saved(tmp_path, matrix()), saved(tmp_path / "b", other)]
    prepared = rows.prepare(tmp_path / "out", sources_, [None])
    assert prepared["aside"]["common cluster"] == TOKENS[-UNTRAINED:]
    assert prepared["cluster_found"] == [True, False]
    for all_, source in zip(prepared["patterns_all"], sources_, strict=True):
        assert torch.equal(sources.embedding(all_), sources.embedding(source))


@pytest.mark.parametrize("name", ["gpt2-mini.learned", "gpt2-stdlib.learned"])
def test_only_tokens_that_hardly_ever_occur_are_set_aside_in_the_zoos_own(name, tmp_path):
    prepared = rows.prepare(tmp_path, [name], [None])
    counts, names = sources.token_counts(name), sources.token_strings(name)
    aside = {name for names in prepared["aside"].values() for name in names}
    assert {token for token, count in zip(names, counts, strict=True) if count == 0} <= aside
    assert all(count <= 15 for token, count in zip(names, counts, strict=True) if token in aside)
