import json
import shutil

import pytest
import torch

import zoo
from zoo.callbacks import LogSpacedCheckpoints
from zoo.export import export
from zoo.models import GPT2, AdamWCosine, FrozenEmbeddingGPT2
from zoo.source import Source

COUNTS = [5, 0, 3, 12, 1]


def reading(what):
    """The method of a Source as a function of its name and a step."""
    return lambda source, step=None: getattr(Source.open(source), what)(step)


def network():
    torch.manual_seed(0)
    return GPT2(vocab_size=5, context_length=4, d_model=4, n_layers=1, n_heads=1)


@pytest.fixture
def folder(tmp_path):
    return zoo.save(network(), tmp_path / "model", step=3, token_counts=COUNTS)


@pytest.fixture
def trained(tiny_data, make_trainer, tmp_path):
    """A run's folder, after two steps on `tiny_data`."""
    m = FrozenEmbeddingGPT2(300, 16, d_model=8, n_layers=1, n_heads=1, optimizer=AdamWCosine(warmup_steps=1))
    trainer = make_trainer(max_steps=2, callbacks=[LogSpacedCheckpoints()])
    trainer.fit(m, tiny_data)
    trainer.save_checkpoint(tmp_path / "run" / "end.ckpt")
    return tmp_path / "run"


def test_saved_counts_come_back(folder):
    counts = Source.open(folder).token_counts()
    assert counts.dtype == torch.int64
    assert counts.tolist() == COUNTS
    assert Source.open(str(folder)).token_counts(step=3).tolist() == COUNTS
    zoo.load(folder)


def test_a_checkpoint_without_counts_has_none_and_loads(tmp_path):
    folder = zoo.save(network(), tmp_path / "model", tokenizer_json="{}")
    assert Source.open(folder).token_counts() is None
    assert not (folder / "token_counts.json").exists()
    zoo.load(folder)


def test_changed_counts_are_refused(folder, refused):
    (folder / "token_counts.json").write_text("[6, 0, 3, 12, 1]")
    for read in (zoo.load, reading("token_counts")):
        with refused(r"damaged: token_counts\.json"):
            read(folder)


def test_counts_that_no_config_vouches_for_are_not_read(tmp_path):
    folder = zoo.save(network(), tmp_path / "model")
    (folder / "token_counts.json").write_text(json.dumps(COUNTS))
    assert Source.open(folder).token_counts() is None


@pytest.mark.parametrize("counts", [[1, -2], [0.5], "many", {"a": 1}, [[1], [2]], [], [True], [2**70]])
def test_what_is_no_list_of_counts_is_refused(tmp_path, refused, counts):
    folder = zoo.save(network(), tmp_path / "model", token_counts=counts)
    with refused("are not a list of counts"):
        Source.open(folder).token_counts()


def test_counts_and_strings_follow_a_run_into_every_checkpoint_it_writes(trained, tiny_data, tmp_path):
    exported = export(trained / "end.ckpt", tmp_path / "exported")
    for source, step in ((trained, 1), (trained, None), (trained / "end.ckpt", None), (exported, None)):
        assert torch.equal(Source.open(source).token_counts(step), tiny_data.row_counts)
        assert Source.open(source).token_strings(step) == tiny_data.row_labels
        assert Source.open(source).tokenizer_json(step) == tiny_data.tokenizer.to_str()


def test_a_lightning_checkpoint_from_before_counts_has_none(trained):
    checkpoint = torch.load(trained / "end.ckpt")
    del checkpoint["zoo"]["token_counts"]
    torch.save(checkpoint, trained / "old.ckpt")
    assert Source.open(trained / "old.ckpt").token_counts() is None
    assert Source.open(export(trained / "old.ckpt", trained / "exported")).token_counts() is None


def test_a_step_that_is_not_there_is_refused(trained, refused):
    for read in map(reading, ("token_counts", "token_strings", "tokenizer_json")):
        with refused("has no step 7; it has 0, 1, 2"):
            read(trained, step=7)
        with refused("holds one step only"):
            read(trained / "end.ckpt", step=2)


@pytest.mark.parametrize("name", ["rows.npy", "rows.safetensors"])
def test_a_bare_matrix_has_neither_counts_nor_strings(tmp_path, name):
    (tmp_path / name).touch()
    assert Source.open(tmp_path / name).token_counts() is None
    assert Source.open(tmp_path / name).token_strings() is None


def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path, refused):
    with refused("the tokenizer of .* cannot be read"):
        Source.open(zoo.save(network(), tmp_path / "model", tokenizer_json="{}")).token_strings()


def test_the_shipped_model_knows_its_tokens_and_their_counts():
    source = Source.open("gpt2-stdlib.learned")
    counts, strings = source.token_counts(), source.token_strings()
    assert len(counts) == len(strings) == len(zoo.embedding("gpt2-stdlib.learned"))
    assert strings[counts.argmax()] == "."
    assert counts.sum() > 2_000_000


def test_a_folder_inside_a_hub_repository_is_read(folder, tmp_path, hub):
    (tmp_path / "repository" / "layer_3").mkdir(parents=True)
    shutil.copytree(folder, tmp_path / "repository" / "layer_3" / "small")
    hub("org/repo", tmp_path / "repository")
    hub("org/repo", tmp_path / "repository", revision="v2")
    for source in ("hf:org/repo/layer_3/small", "hf:org/repo/layer_3/small@v2"):
        assert torch.equal(zoo.load(source).W_E, network().W_E)
        assert torch.equal(zoo.embedding(source), network().W_E)
        assert Source.open(source).token_counts().tolist() == COUNTS


def test_a_folder_that_a_hub_repository_does_not_have_is_refused(folder, hub, refused):
    files = ("config.json", "cfg.json", "params.npz", "params.safetensors")
    hub("org/repo", folder, absent=[f"layer_9/{file}" for file in files])
    with refused(r"hf:org/repo/layer_9 has no config\.json"):
        zoo.load("hf:org/repo/layer_9")
