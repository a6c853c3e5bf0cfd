"""Complexities of Boolean functions, compared with slow references and with known circuits."""

import itertools
import math

import numpy as np
import pytest

from zoo.functions.complexity import MEASURES, circuit_sizes, entropy_of_ones, lempel_ziv, over_orders, words
from zoo.functions.keys import inputs, keys_from_tables, tables_from_keys, tables_from_texts, texts_from_tables
from zoo.functions.names import all_keys, names_of, well_known, with_inputs_in_order


def count_words(text):
    """Words of the history of Lempel and Ziv, by searching texts: each is the shortest new piece."""
    found = begin = 0
    while begin < len(text):
        end = begin + 1
        while end <= len(text) and text[begin:end] in text[: end - 1]:
            end += 1
        found, begin = found + 1, end
    return found


def complexity(text):
    """C as it is defined."""
    N = len(text)
    if len(set(text)) == 1:
        return math.log2(N)
    return math.log2(N) * (count_words(text) + count_words(text[::-1])) / 2


def structured():
    """Tables of 7 inputs: periodic ones, blocks, single ones, and random pieces that repeat."""
    rng = np.random.default_rng(0)
    for period in (1, 2, 3, 5, 7, 16, 31, 63, 64, 65):
        piece = "".join(rng.choice(["0", "1"], period))
        yield (piece * 128)[:128]
    for place in (0, 1, 2, 62, 63, 64, 65, 126, 127):
        yield "0" * place + "1" + "0" * (127 - place)
        yield "1" * place + "0" * (128 - place)
    yield from texts_from_tables(np.concatenate([inputs(7).T, inputs(7).sum(1, keepdims=True).T % 2]))


def test_an_example_of_lempel_and_ziv_has_six_words():
    # 0 . 001 . 10 . 100 . 1000 . 101 in section III of their paper
    assert count_words("0001101001000101") == 6
    assert words(keys_from_tables(tables_from_texts(["0001101001000101"])), 4)[0, 0] == 6


def test_all_functions_of_4_inputs_have_the_complexity_of_a_slow_reference():
    keys = all_keys(4)
    expected = [complexity(text) for text in texts_from_tables(tables_from_keys(keys, 4))]
    assert lempel_ziv(keys, 4).tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7])
def test_random_functions_have_the_complexity_of_a_slow_reference(n):
    tables = np.random.default_rng(n).integers(0, 2, (200, 2**n))
    assert lempel_ziv(keys_from_tables(tables), n).tolist() == [complexity(t) for t in texts_from_tables(tables)]


def test_structured_functions_of_7_inputs_have_the_complexity_of_a_slow_reference():
    texts = list(structured())
    assert lempel_ziv(keys_from_tables(tables_from_texts(texts)), 7).tolist() == [*map(complexity, texts)]


def test_complexity_does_not_change_when_a_table_is_reversed_or_negated():
    tables = np.random.default_rng(0).integers(0, 2, (300, 128))
    C = lempel_ziv(keys_from_tables(tables), 7)
    assert (lempel_ziv(keys_from_tables(tables[:, ::-1]), 7) == C).all()
    assert (lempel_ziv(keys_from_tables(1 - tables), 7) == C).all()


def test_an_order_of_inputs_renames_them():
    x = inputs(3)
    f = keys_from_tables((x[:, [0]] & ~x[:, [1]] & 1).T)  # x_1 and not x_2
    g = with_inputs_in_order(f, 3, (2, 0, 1))  # the old third input comes first, then the old first and second
    assert names_of(g, 3) == ["x_2 and not x_3"]
    assert with_inputs_in_order(g, 3, (1, 2, 0)).tolist() == f.tolist()


def test_lempel_ziv_complexity_depends_on_the_order_of_inputs_unless_the_function_does_not():
    literals, parity = keys_from_tables(inputs(4).T), well_known(4)["parity of all inputs"]
    assert len(set(lempel_ziv(literals, 4))) > 1
    means = over_orders(literals, 4).mean(1)
    assert np.ptp(means) < 1e-12  # over all 24 orders, every input takes every place
    assert over_orders(literals, 4).shape == (4, 24)
    assert np.ptp(over_orders(parity, 4)) == 0


def test_orders_are_drawn_if_there_are_many():
    keys = keys_from_tables(inputs(7).T)
    assert over_orders(keys, 7, most=5).shape == (7, 5)
    assert (over_orders(keys, 7, most=5, seed=1) == over_orders(keys, 7, most=5, seed=1)).all()


def test_the_entropy_of_the_share_of_ones():
    keys = keys_from_tables(np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]))
    quarter = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert entropy_of_ones(keys, 2) == pytest.approx([0, 0, quarter, 1])


def test_smallest_circuits_of_known_functions():
    def size(n, f):
        (key,) = keys_from_tables(np.array([[f(*x) for x in itertools.product((0, 1), repeat=n)]]))[0]
        return circuit_sizes(n)[int(key)]

    for n in (1, 2, 3):
        assert size(n, lambda *x: 0) == size(n, lambda *x: 1) == size(n, lambda *x: x[-1]) == 0
        assert size(n, lambda *x: all(x)) == size(n, lambda *x: not any(x)) == n - 1
        assert size(n, lambda *x: sum(x) % 2) == 3 * (n - 1)  # Schnorr 1974: parity needs 3 (n - 1) such gates
    assert size(3, lambda a, b, c: a + b + c >= 2) == 4
    assert size(3, lambda a, b, c: b if a else c) == 3


def test_smallest_circuits_do_not_depend_on_the_order_of_inputs_or_on_negation():
    sizes, keys = circuit_sizes(3), all_keys(3)
    for order in itertools.permutations(range(3)):
        assert (sizes[with_inputs_in_order(keys, 3, order)[:, 0].astype(int)] == sizes).all()
    assert (sizes == sizes[::-1]).all()
    assert sizes.max() == 6


def test_inputs_that_are_too_many_are_refused(refused):
    with refused("n_inputs is 8; Lempel-Ziv complexities exist for 1 to 7 inputs"):
        lempel_ziv(np.zeros((1, 4), np.uint64), 8)
    with refused("must be \\(m, 2\\)"):
        lempel_ziv(np.zeros((1, 1), np.uint64), 7)
    with refused("smallest circuits are known for 1 to 3 inputs"):
        MEASURES["circuit"](all_keys(4), 4)


def test_names():
    texts = ["00000000", "00001111", "01101001", "00000001", "00010111", "00000110", "00100100", "00111111", "01100100"]
    assert names_of(keys_from_tables(tables_from_texts(texts)), 3) == [
        "constant 0",
        "x_1",
        "parity of all inputs",
        "AND of all inputs",
        "at least 2 of 3 inputs on",
        "1 for inputs 5 to 6",
        "",
        "x_1 or x_2",
        "",
    ]
    text = ("011" * 43)[:128]
    assert names_of(keys_from_tables(tables_from_texts([text])), 7) == ["011 repeated"]
