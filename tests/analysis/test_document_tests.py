import numpy as np
import pytest

from zoo.analysis.document_tests import ratio_of_means, sign_test
from zoo.errors import ZooError


def measured(rng, n_documents=40, per_document=10, ratio=1.0):
    """Values of tokens whose level depends on the document, so that tokens of a document are not independent."""
    documents = np.repeat(np.arange(n_documents), per_document)
    level = rng.gamma(2.0, size=(2, n_documents))[:, documents]
    noise = rng.gamma(2.0, size=(2, len(documents))) / 2
    values, reference = level * noise
    return ratio * values, reference, documents


def test_the_ratio_is_that_of_the_means_and_its_interval_covers_the_true_one():
    values, reference, documents = measured(np.random.default_rng(0))
    found = ratio_of_means(values, reference, documents)
    assert found.mean == pytest.approx(values.mean() / reference.mean())
    assert found.n == 40
    rng = np.random.default_rng(1)
    covered = np.mean([2.5 in ratio_of_means(*measured(rng, ratio=2.5), draws=400) for _ in range(400)])
    assert 0.89 <= covered <= 0.98
    rng = np.random.default_rng(1)
    alone = [2.5 in ratio_of_means(*measured(rng, ratio=2.5)[:2], np.arange(400), draws=400) for _ in range(100)]
    assert np.mean(alone) < 0.7  # tokens in place of documents


def test_the_sign_test_counts_documents_and_not_tokens():
    found = sign_test([2, 2, 2, 2, 1, 0, 5], [1, 1, 1, 1, 2, 0, 5], [0, 0, 0, 0, 1, 2, 3])
    assert (found.above, found.below) == (1, 1)
    assert found.p_value == 1
    found = sign_test(np.arange(12) + 1, np.arange(12), np.arange(12) // 2)
    assert (found.above, found.below) == (6, 0)
    assert found.p_value == pytest.approx(2 / 2**6)


def test_the_sign_test_calls_a_difference_in_at_most_5_percent_if_there_is_none():
    rng = np.random.default_rng(0)
    assert np.mean([sign_test(*measured(rng)).p_value < 0.05 for _ in range(1000)]) < 0.065


def test_an_autoencoder_without_error_has_no_ratio_and_no_sign():
    zeros, documents = np.zeros(6), [0, 0, 1, 1, 2, 2]
    assert f"{ratio_of_means(zeros, zeros, documents)}" == "-"
    assert sign_test(zeros, zeros, documents) == (0, 0, 1.0)


@pytest.mark.parametrize(
    ("values", "documents", "line"),
    [([1.0, 2.0], [3, 3], "of one document"), ([1.0, float("nan")], [0, 1], "not finite")],
)
def test_what_does_not_fit_is_refused(values, documents, line):
    for call in (ratio_of_means, sign_test):
        with pytest.raises(ZooError, match=line):
            call(values, [1.0, 1.0], documents)
