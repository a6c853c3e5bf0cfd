import numpy as np
import pytest

from zoo.functions.keys import (
    inputs,
    keys_from_tables,
    n_words,
    tables_from_keys,
    tables_from_texts,
    texts_from_tables,
)


def test_the_first_input_is_the_most_significant_digit_and_bit_0_of_a_key_is_input_0():
    assert inputs(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    first, second = inputs(2).T
    assert texts_from_tables([first, second, first & second]) == ["0011", "0101", "0001"]
    assert keys_from_tables([first, second, first & second]).tolist() == [[12], [10], [8]]


@pytest.mark.parametrize("n", range(1, 9))
def test_tables_keys_and_texts_hold_the_same_functions(n):
    tables = np.random.default_rng(n).random((20, 2**n)) < 0.5
    keys = keys_from_tables(tables)
    assert keys.shape == (20, n_words(n))
    assert keys.dtype == np.uint64
    for i in range(2**n):  # the definition
        assert ((keys[:, i // 64] >> np.uint64(i % 64) & np.uint64(1)) == tables[:, i]).all()
    assert (tables_from_keys(keys, n) == tables).all()
    assert (tables_from_texts(texts_from_tables(tables)) == tables).all()


def test_what_is_no_function_is_refused(refused):
    with refused("n_inputs is 9; it must be from 1 to 8"):
        inputs(9)
    with refused("n_inputs is 0"):
        tables_from_keys(np.zeros((1, 1), np.uint64), 0)
    with refused(r"tables have the shape \(1, 3\)"):
        keys_from_tables([[0, 1, 1]])
    with refused(r"for 7 inputs it must be \(F, 2\)"):
        tables_from_keys(np.zeros((1, 1), np.uint64), 7)
    with refused("'01' is not a table of 4 zeros and ones"):
        tables_from_texts(["0110", "01"])
    with refused("'01a0' is not a table"):
        tables_from_texts(["01a0"])
    with refused("'011' is not a table of 2, 4, ..., or 256 zeros and ones"):
        tables_from_texts(["011"])
