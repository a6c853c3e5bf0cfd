import json

import numpy as np
import pytest

import zoo
from zoo.shared_tasks.rows import read_tokens
from zoo.source import Source

TOKENS = ["a", "ï", " b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["tokens.txt", "tokens.json", "TOKENS.JSON", "vocabulary.json"])
def test_a_byte_order_mark_and_capitals_change_no_token(tmp_path, name, encoding):
    ids = {token: i for i, token in enumerate(TOKENS)}
    lists = {"tokens.txt": "\n".join(TOKENS) + "\n", "vocabulary.json": json.dumps(ids)}
    (tmp_path / name).write_text(lists.get(name, json.dumps(TOKENS)), encoding)
    assert read_tokens(str(tmp_path / name)) == TOKENS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_before_the_tokens_of_a_matrix_changes_none(tmp_path, encoding):
    np.save(tmp_path / "W.npy", np.ones((3, 2), np.float32))
    (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS), encoding)
    assert Source.open(tmp_path / "W.npy").token_strings() == TOKENS
    assert zoo.embedding(tmp_path / "W.npy").shape == (3, 2)


def test_a_tokenizer_beside_a_matrix_names_its_rows_unless_a_list_does(tiny_data, tmp_path):
    np.save(tmp_path / "W.npy", np.ones((300, 4), np.float32))
    (tmp_path / "W.tokenizer.json").write_text(tiny_data.tokenizer.to_str())
    assert Source.open(tmp_path / "W.npy").token_strings() == tiny_data.row_labels
    (tmp_path / "W.tokens.json").write_text('["a"]')
    assert Source.open(tmp_path / "W.npy").token_strings() == ["a"]
