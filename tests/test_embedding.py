import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from supported import embeddings as table

import zoo
from zoo.models import GPT2

W = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return GPT2(vocab_size=20, context_length=8, d_model=6, n_layers=1, n_heads=1)


def write(folder, tensors, config=None):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("case", table.CASES, ids=lambda case: case.what)
def test_an_embedding_is_read_as_it_was_written_or_refused(tmp_path, refused, case):
    made = case.make(tmp_path)
    if case.refusal:
        with refused(case.refusal):
            zoo.embedding(made)
    else:
        source, expected = made
        read = zoo.embedding(source)
        assert read.dtype == torch.float32
        assert torch.equal(read, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_safetensors_file_is_read_as_float32(tmp_path, dtype):
    write(tmp_path, {"wte.weight": W.to(dtype), "wpe.weight": torch.zeros(4, 6)})
    read = zoo.embedding(str(tmp_path / "model.safetensors"))
    assert read.dtype == torch.float32
    assert torch.equal(read, W.to(dtype).float())


@pytest.mark.parametrize(
    "name",
    [
        "transformer.wte.weight",
        "gpt_neox.embed_in.weight",
        "embed_in.weight",
        "bert.embeddings.word_embeddings.weight",
        "embeddings.word_embeddings.weight",
        "model.embed_tokens.weight",
        "embed_tokens.weight",
        "W_E",
    ],
)
def test_the_embedding_is_known_by_the_names_that_families_give_it(tmp_path, name):
    others = {"embed_out.weight": -W, "embeddings.position_embeddings.weight": -W, "lm_head.weight": -W}
    folder = write(tmp_path / "model", {**others, name: W}, {"model_type": "whatever"})
    assert torch.equal(zoo.embedding(folder), W)


def test_a_zoo_folder_gives_its_embedding_at_the_step_asked_for(tmp_path, model, refused):
    zoo.save(model, tmp_path / "step-000000")
    with torch.no_grad():
        model.W_E.add_(1)
    zoo.save(model, tmp_path / "step-000010", step=10)
    assert torch.equal(zoo.embedding(tmp_path), model.W_E)
    assert torch.equal(zoo.embedding(tmp_path, step=10), model.W_E)
    assert torch.equal(zoo.embedding(tmp_path, step=0), zoo.load(tmp_path, step=0).W_E)
    with refused("has no step 5; it has 0, 10"):
        zoo.embedding(tmp_path, step=5)


def test_a_zoo_folder_with_another_embedding_than_was_saved_is_refused(tmp_path, model, refused):
    zoo.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["transformer.wte.weight"][3, 3] += 1e-6
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(zoo.embedding(tmp_path, tensor="transformer.wpe.weight"), model.transformer.wpe.weight)
    with refused(r"damaged: tensor transformer\.wte\.weight"):
        zoo.embedding(tmp_path)


def test_a_tensor_is_chosen_by_name(tmp_path, refused):
    write(tmp_path, {"wte.weight": W, "my_rows": 2 * W})
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert torch.equal(zoo.embedding(source, tensor="my_rows"), 2 * W)
        with refused(r"has no tensor 'rows'; it has wte\.weight \[20, 6\], my_rows \[20, 6\]$"):
            zoo.embedding(source, tensor="rows")


def test_an_embedding_without_a_known_name_has_to_be_named(tmp_path, refused):
    write(tmp_path, {"my_rows": W})
    with refused(r"choose one with --tensor: my_rows \[\d+, \d+\]$"):
        zoo.embedding(tmp_path)


def test_of_a_sharded_repository_only_the_shard_with_the_embedding_is_needed(tmp_path, refused):
    save_file({"wte.weight": W}, tmp_path / "model-00002-of-00003.safetensors")
    index = {"h.0.weight": 1, "wte.weight": 2, "h.1.weight": 3}
    weight_map = {name: f"model-{number:05}-of-00003.safetensors" for name, number in index.items()}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(zoo.embedding(tmp_path), W)
    with refused(r"has no model-00003-of-00003\.safetensors"):
        zoo.embedding(tmp_path, tensor="h.1.weight")


@pytest.mark.parametrize(
    "index", ["{}", '{"weight_map": []}', '{"weight_map": {"wte.weight": "../w"}}', "no json", "[]"]
)
def test_a_damaged_index_of_shards_is_refused(tmp_path, refused, index):
    (tmp_path / "model").mkdir()
    save_file({"wte.weight": W}, tmp_path / "w")
    (tmp_path / "model" / "model.safetensors.index.json").write_text(index)
    with refused("is damaged"):
        zoo.embedding(tmp_path / "model")


@pytest.mark.parametrize("rows", [torch.zeros(4, 3, dtype=torch.int64), torch.zeros(2, 4, 3), torch.zeros(5)])
def test_what_is_no_matrix_of_floats_is_refused(tmp_path, refused, rows):
    write(tmp_path, {"wte.weight": rows})
    np.save(tmp_path / "w.npy", rows.numpy())
    for source in (tmp_path, tmp_path / "model.safetensors", tmp_path / "w.npy"):
        with refused("not a matrix of token rows|weights are read in float32"):
            zoo.embedding(source)


@pytest.mark.parametrize("name", ["none.npy", "none.safetensors", "none.ckpt", "none", "none.txt"])
def test_a_missing_source_is_refused(tmp_path, refused, name):
    with refused("none"):
        zoo.embedding(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path, refused):
    (tmp_path / "w.txt").write_text("1 2 3")
    with refused("is a file; expected a folder"):
        zoo.embedding(tmp_path / "w.txt")
    with refused("has no model.safetensors"):
        zoo.embedding(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00v\x00"])
@pytest.mark.parametrize("name", ["w.npy", "w.safetensors", "w.ckpt"])
def test_a_damaged_file_is_refused(tmp_path, refused, name, content):
    (tmp_path / name).write_bytes(content)
    with refused(name):
        zoo.embedding(tmp_path / name)


def test_pickled_arrays_are_refused(tmp_path, refused):
    np.save(tmp_path / "w.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with refused("damaged, or is not a .npy file of numbers"):
        zoo.embedding(tmp_path / "w.npy")


@pytest.mark.parametrize("name", ["w.npy", "w.safetensors", "w.ckpt"])
def test_a_step_of_what_holds_one_step_is_refused(tmp_path, refused, name):
    (tmp_path / name).touch()
    with refused("holds one step only"):
        zoo.embedding(tmp_path / name, step=3)
