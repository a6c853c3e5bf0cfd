import numpy as np
import pytest

from zoo.analysis.documents import document_windows, long_documents, several_windows
from zoo.errors import ZooError

TEXT = np.array([*[1] * 5, 0, *[2] * 3, 0, 0, *[3] * 9, 0, *[4] * 4, 0])  # 0 ends a document; one is empty


def test_documents_are_what_lies_between_the_ends():
    assert long_documents(TEXT, 0, 4).tolist() == [[0, 5], [11, 20], [21, 25]]
    assert len(long_documents(TEXT, 0, 0)) == 5
    assert len(long_documents(TEXT, 9, 1)) == 0


def test_every_window_lies_within_a_document_of_its_own():
    for seed in range(20):
        windows = document_windows(TEXT, 0, 3, 4, seed)
        assert sorted(map(set, windows.tolist()), key=min) == [{1}, {3}, {4}]
    first = {tuple(document_windows(np.append(np.arange(1, 60), 0), 0, 1, 5, seed)[0]) for seed in range(50)}
    assert all(np.diff(window).tolist() == [1] * 4 for window in first)
    assert len(first) > 20


def test_the_prefix_begins_every_window_and_counts():
    windows = document_windows(TEXT, 0, 3, 5, prefix=[7])
    assert windows.shape == (3, 5)
    assert (windows[:, 0] == 7).all()
    assert sorted(windows[:, 1:].min(1)) == [1, 3, 4]


def test_too_few_documents_are_refused():
    with pytest.raises(ZooError, match="the text has 1 documents of at least 6 tokens, fewer than the 2 documents"):
        document_windows(TEXT, 0, 2, 6)


def test_several_windows_do_not_overlap_and_come_from_all_documents_first():
    """Tokens are numbered, so a window's first token says where it is."""
    lengths, end = (50, 23, 10, 4), 0
    text, starts = [], []
    for length in lengths:
        starts.append(len(text))
        text += [*range(len(text) + 1, len(text) + 1 + length), end]
    windows, documents = several_windows(np.array(text), end, 8, 10)
    assert sorted(documents[:3]) == [0, 1, 2]  # the last document is too short
    assert len({token for window in windows for token in window}) == 80
    for window, one in zip(windows, documents, strict=True):
        assert (np.diff(window) == 1).all()
        assert starts[one] < window[0] <= window[-1] <= starts[one] + lengths[one]


@pytest.mark.parametrize(("lengths", "n"), [((50, 23), 8), ((50, 3), 2)])
def test_too_few_windows_or_documents_are_refused(refused, lengths, n):
    text = np.concatenate([[*[1] * length, 0] for length in lengths])
    with refused("at least 2 documents and"):
        several_windows(text, 0, n, 10)
