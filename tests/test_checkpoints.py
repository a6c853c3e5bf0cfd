import http.server
import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from small_gpt2 import SIZES, network, same
from supported import autoencoders
from supported import checkpoints as layouts

import zoo
from zoo import checkpoint_config, checkpoints
from zoo.export import export
from zoo.source_files import Folder

IDS = torch.arange(24).view(2, 12)


class Payload:
    """Pickles to a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def folder(tmp_path):
    return zoo.save(network(), tmp_path / "model", step=7, tokenizer_json='{"a": 1}')


def edit_config(folder, **changes):
    """Change the "zoo" part of a config."""
    config = json.loads((folder / "config.json").read_text())
    part = config.pop("zoo") | changes
    del part["sha256"]
    checkpoint_config.write(folder, part, config)


def edit_tensors(folder, edit):
    """Change the tensors, with or without knowledge of their hashes."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_bit_by_bit(tmp_path, tied):
    model = network(tied=tied)
    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    assert same(model, loaded)
    assert loaded.config == model.config
    assert (loaded.W_U is loaded.W_E) == tied
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(model(IDS), loaded(IDS))


@pytest.mark.parametrize("case", [*layouts.CASES, *autoencoders.CASES], ids=lambda case: case.what)
def test_a_layout_is_read_as_its_writer_reads_it_or_refused(tmp_path, refused, case):
    made = case.make(tmp_path)
    if case.refusal:
        with refused(case.refusal):
            zoo.load(made)
    else:
        source, given, expected = made
        torch.testing.assert_close(zoo.load(source)(given), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("drop", [[], ["tie_word_embeddings"]])
def test_an_exported_gpt2_keeps_a_head_that_differs_from_its_embedding(tmp_path, drop):
    layouts.rewritten(tmp_path / "theirs", layouts.own_head, drop=drop)
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    folder = export(tmp_path / "theirs", tmp_path / "ours")
    model = zoo.load(folder)
    assert not model.tied
    assert torch.equal(model.W_E, stored["transformer.wte.weight"])
    assert torch.equal(model.W_U, stored["lm_head.weight"])
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    twin = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    torch.testing.assert_close(model(IDS), twin(IDS).logits, atol=1e-5, rtol=1e-5)


def test_a_tied_copy_is_stored_once(folder, tmp_path):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    untied = zoo.save(network(tied=False), tmp_path / "untied")
    assert "lm_head.weight" in load_file(untied / "model.safetensors")


def test_the_same_model_saved_twice_gives_the_same_bytes(folder, tmp_path):
    again = zoo.save(network(), tmp_path / "again" / "model", step=7, tokenizer_json='{"a": 1}')
    for file in folder.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_loading_leaves_the_global_random_state_alone(folder, tmp_path):
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**network().hf_config())).save_pretrained(tmp_path / "twin")
    state = torch.random.get_rng_state()
    for source in (folder, tmp_path / "twin"):
        zoo.load(source)
        assert torch.equal(torch.random.get_rng_state(), state)


def test_the_config_and_card_tell_where_a_model_comes_from(tmp_path):
    provenance = {"seed": 3, "command": "python -m zoo fit", "metrics": {"val/loss": 1.25}}
    folder = zoo.save(network(), tmp_path / "model", step=12, provenance=provenance)
    config = checkpoint_config.read(folder)
    assert (config["step"], config["provenance"], config["class"]) == (12, provenance, "GPT2")
    card = (folder / "README.md").read_text()
    assert all(text in card for text in ("after 12 training steps", "| val/loss | 1.25 |", "python -m zoo fit", "`3`"))
    assert zoo.info(str(folder)) == card


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_a_saved_model(tmp_path, tied):
    model = network(tied=tied)
    twin = transformers.GPT2LMHeadModel.from_pretrained(zoo.save(model, tmp_path / "model")).eval()
    torch.testing.assert_close(twin(IDS).logits, model(IDS), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_size", ["1GB", "5KB"])
def test_a_model_saved_by_transformers_is_read_whole_or_sharded(tmp_path, tied, shard_size):
    twin = transformers.GPT2LMHeadModel(transformers.GPT2Config(**network(tied=tied).hf_config())).eval()
    twin.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "5KB")
    model = zoo.load(tmp_path)
    assert model.tied == tied
    assert not any(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model(IDS), twin(IDS).logits, atol=1e-4, rtol=1e-4)


def test_names_without_prefix_and_mask_buffers_are_understood(tmp_path):
    model = network()
    tensors = {n.removeprefix("transformer."): t for n, t in model.state_dict().items() if n != "lm_head.weight"}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 12, 12).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.hf_config()))
    assert same(zoo.load(tmp_path), model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "type 't5'"),
        (
            {"activation_function": "relu", "n_layer": 1},
            r"tensor transformer\.h\.1\S+ does not belong to a GPT2LMHeadModel",
        ),
        ({"activation_function": "relu", "n_layer": 3}, r"has no tensor transformer\.h\.2"),
        ({"activation_function": "relu", "n_embd": 32}, r"has shape \[.*\]; its config says \[.*\]"),
        ({"n_layer": 3}, r"tensor transformer\.h\.2\S+ is missing"),
        ({"n_layer": 1}, r"tensor transformer\.h\.1\S+ does not belong"),
        ({"n_embd": 32}, r"has shape \[.*\]; its config says \[.*\]"),
        ({"n_embd": None}, "cannot be built: d_model is None"),
    ],
)
def test_a_foreign_model_that_is_no_plain_gpt2_is_refused(tmp_path, refused, change, message):
    model = network()
    save_file(dict(list(model.state_dict().items())[:-1]), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.hf_config() | change))
    with refused(message):
        zoo.load(tmp_path)


@pytest.mark.parametrize("position", [2, 100, -1, -5000])
def test_a_flipped_byte_in_the_weights_is_refused(folder, refused, position):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[position] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with refused("damaged"):
        zoo.load(folder)


@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_truncated_weights_are_refused(folder, refused, length):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:length])
    with refused(r"model\.safetensors is damaged"):
        zoo.load(folder)


@pytest.mark.parametrize("name", ["transformer.h.1.ln_2.bias", "extra", "lm_head.weight"])
def test_a_tensor_more_or_less_is_refused(folder, refused, name):
    def edit(tensors):
        if tensors.pop(name, None) is None:
            tensors[name] = torch.zeros(50, 16)

    edit_tensors(folder, edit)
    with refused(f"damaged: tensor {name}"):
        zoo.load(folder)


def test_tensors_that_are_not_those_of_the_class_are_refused(folder, refused):
    for name in ("transformer.h.1.ln_2.bias", "transformer.wte.weight"):
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        with refused(f"does not fit GPT2: tensor {name} is missing"):
            checkpoints.build("GPT2", SIZES, tensors, folder)
    with refused("tensor extra does not belong to it"):
        checkpoints.build("GPT2", SIZES, {**network().state_dict(), "extra": torch.zeros(1)}, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_args": {**SIZES, "d_model": 32}}, r"has shape \[.*\]; its config says \[.*\]"),
        ({"init_args": {**SIZES, "n_layers": 1}}, r"tensor transformer\.h\.1\S+ does not belong"),
        ({"init_args": {**SIZES, "n_layers": 3}}, r"tensor transformer\.h\.2\S+ is missing"),
        ({"init_args": {**SIZES, "n_heads": 3}}, "cannot be built: d_model 16 is not a multiple"),
        ({"init_args": {**SIZES, "colour": "red"}}, "cannot be built.*colour"),
        ({"init_args": {**SIZES, "vocab_size": "many"}}, "cannot be built"),
        ({"init_args": {**SIZES, "vocab_size": 2**60}}, "its config says vocab_size 1152921504606846976"),
        ({"init_args": [1, 2]}, "is not the config of a zoo checkpoint"),
        ({"tensors": []}, "is not the config of a zoo checkpoint"),
        ({"tensors": {}}, "damaged: tensor"),
        ({"format_version": 2}, "has format version 2; this version of the zoo reads 1"),
        ({"class": "Mystery"}, "class 'Mystery', which this version"),
        ({"class": "AdamWCosine"}, "class 'AdamWCosine', which this version"),
        ({"class": "gpt2"}, "class 'gpt2', which this version"),
        ({"class": "os.system"}, "class 'os.system', which this version"),
        ({"files": {"tokenizer.json": "0" * 64}}, "damaged: tokenizer.json"),
        ({"files": {"vocab.txt": "0" * 64}}, "damaged: vocab.txt"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, refused, changes, message):
    edit_config(folder, **changes)
    with refused(message):
        zoo.load(folder)


def test_files_outside_the_folder_are_refused_even_with_the_right_hash(folder, refused):
    secret = folder.parent / "secret"
    secret.write_text('{"a": 1}')
    digest = checkpoint_config.read(folder)["files"]["tokenizer.json"]
    for name in ("../secret", str(secret), "..", "./tokenizer.json", ""):
        edit_config(folder, files={name: digest})
        with refused("is not the file that was saved"):
            zoo.load(folder)


def test_a_changed_tokenizer_is_refused(folder, refused):
    (folder / "tokenizer.json").write_text('{"a": 2}')
    with refused("damaged: tokenizer.json"):
        zoo.load(folder)


@pytest.mark.parametrize("content", [b"not json", b"[]", b'"zoo"', b"\xff", b"", b'{"zoo": null}', b'{"zoo": {}}'])
def test_a_broken_config_is_refused(folder, refused, content):
    (folder / "config.json").write_bytes(content)
    with refused(r"config\.json is"):
        zoo.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_refused(folder, refused, name):
    (folder / name).unlink()
    with refused(name):
        zoo.load(folder)


def test_a_pickle_in_the_place_of_weights_is_refused_and_does_not_run(folder, tmp_path, refused):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with refused("damaged, or is not a safetensors file"):
        zoo.load(folder)
    torch.save(Payload(tmp_path / "ran"), folder / "model.safetensors")
    with refused("damaged, or is not a safetensors file"):
        zoo.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_lightning_checkpoint_with_code_is_refused_and_does_not_run(tmp_path, refused, plain_pickle):
    content = {"state_dict": network().state_dict(), "zoo": Payload(tmp_path / "ran")}
    if plain_pickle:
        (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "evil.ckpt")
    for read in (zoo.load, zoo.embedding, lambda path: export(path, tmp_path / "out")):
        with refused("is not a plain checkpoint"):
            read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def ckpt(tmp_path):
    part = {
        "class": "GPT2",
        "init_args": network().config,
        "step": 9,
        "tokenizer_json": "{}",
        "provenance": {"seed": 4},
    }
    state = {f"net.{name}": tensor for name, tensor in network().state_dict().items()}
    torch.save({"state_dict": {**state, "frozen": torch.ones(2)}, "zoo": part}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_lightning_checkpoint_gives_its_network(ckpt):
    assert same(zoo.load(ckpt), network())
    assert torch.equal(zoo.embedding(ckpt), network().W_E)


def test_an_exported_lightning_checkpoint_keeps_weights_step_tokenizer_and_provenance(ckpt, tmp_path):
    folder = export(ckpt, tmp_path / "out")
    assert same(zoo.load(folder), network())
    config = checkpoint_config.read(folder)
    assert (config["step"], config["provenance"]) == (9, {"seed": 4})
    assert (folder / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"zoo": {"class": "GPT2", "init_args": {}}}, [1], {"zoo": {}}])
def test_a_lightning_checkpoint_of_something_else_is_refused(tmp_path, refused, content):
    torch.save(content, tmp_path / "other.ckpt")
    with refused("was not written by a module of the zoo"):
        zoo.load(tmp_path / "other.ckpt")


def test_a_folder_with_a_pickle_only_is_refused(folder, refused):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(network().hf_config()))
    with refused(r"has only pytorch_model\.bin, a pickle"):
        zoo.load(folder)


@pytest.mark.parametrize(
    "source", ["no/such/model", "no-such-name", "none.ckpt", "hf:", "hf:a/../c", "hf:a//c", "hf:../x"]
)
def test_sources_that_do_not_exist_are_refused(refused, source):
    with refused("no checkpoint|does not exist|not a name on the hub|cannot be read"):
        zoo.load(source)


def test_an_interrupted_save_leaves_the_old_checkpoint(folder, tmp_path):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(TypeError):
        zoo.save(network(seed=1), folder, provenance={"not": {"plain json"}})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_an_older_checkpoint_is_replaced_damaged_or_not(folder, tmp_path):
    zoo.save(network(seed=1), folder)
    assert same(zoo.load(folder), network(seed=1))
    (folder / "model.safetensors").write_bytes(b"")
    zoo.save(network(seed=2), folder)
    assert same(zoo.load(folder), network(seed=2))
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "files", [{"thesis.txt": "!"}, {"config.json": '{"model_type": "gpt2"}'}, {"config.json": "[]"}]
)
def test_a_folder_that_is_no_zoo_checkpoint_is_not_overwritten(tmp_path, refused, files):
    (tmp_path / "mine").mkdir()
    for name, text in files.items():
        (tmp_path / "mine" / name).write_text(text)
    with refused("holds other files|holds a model that is not a zoo checkpoint|is a file"):
        zoo.save(network(), tmp_path / "mine")
    assert {p.name: p.read_text() for p in (tmp_path / "mine").iterdir()} == files


def test_a_file_in_the_way_is_not_overwritten(tmp_path, refused):
    (tmp_path / "model").write_text("mine")
    with refused("holds other files|holds a model that is not a zoo checkpoint|is a file"):
        zoo.save(network(), tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "model").mkdir()
    assert same(zoo.load(zoo.save(network(), tmp_path / "model")), network())


@pytest.mark.parametrize("below", ["", "steps"])
def test_a_step_is_chosen_and_the_last_one_by_default(tmp_path, refused, below):
    for step in (0, 512, 1_000_000):
        zoo.save(network(seed=step), tmp_path / below / f"step-{step:06}", step=step)
    for step in (0, 512, 1_000_000):
        assert same(zoo.load(tmp_path, step=step), network(seed=step))
        assert torch.equal(zoo.embedding(tmp_path, step=step), network(seed=step).W_E)
    assert same(zoo.load(tmp_path), network(seed=1_000_000))
    with refused("has no step 3; it has 0, 512, 1000000"):
        zoo.load(tmp_path, step=3)


def test_a_plain_checkpoint_is_found_at_its_own_step_only(folder, ckpt, refused):
    assert same(zoo.load(folder, step=7), network())
    with refused("holds step 7 only, not step 8"):
        zoo.load(folder, step=8)
    with refused("holds one step only"):
        zoo.load(ckpt, step=7)


def test_a_step_of_a_hub_model_is_a_folder_of_it(folder, tmp_path, hub, refused):
    (tmp_path / "steps").mkdir()
    shutil.copytree(folder, tmp_path / "steps" / "step-000007")
    hub("org/repo", tmp_path / "steps", absent=["step-000008/config.json", "step-000008/cfg.json"])
    assert same(zoo.load("hf:org/repo", step=7), network())
    assert torch.equal(zoo.embedding("hf:org/repo", step=7), network().state_dict()["transformer.wte.weight"])
    with refused("hf:org/repo at step 8 has no config.json"):
        zoo.load("hf:org/repo", step=8)


def test_a_hub_model_is_loaded_from_the_local_cache_by_revision(folder, tmp_path, hub, refused):
    commit = hub("org/repo", folder)
    hub("org/repo", zoo.save(network(seed=1), tmp_path / "other"), revision="step512")
    assert same(zoo.load("hf:org/repo"), network())
    assert same(zoo.load(f"hf:org/repo@{commit}"), network())
    assert same(zoo.load("hf:org/repo@step512"), network(seed=1))
    assert torch.equal(zoo.embedding("hf:org/repo@step512"), network(seed=1).W_E)
    for source in ("hf:org/repo@v2", "hf:org/unknown"):
        with refused("is not in the local cache and the hub cannot be reached"):
            zoo.load(source)


def test_a_sharded_hub_model_is_loaded_from_the_local_cache(tmp_path, hub):
    twin = transformers.GPT2LMHeadModel(transformers.GPT2Config(**network().hf_config())).eval()
    twin.save_pretrained(tmp_path / "twin", max_shard_size="5KB")
    hub("org/sharded", tmp_path / "twin", absent=["model.safetensors"])
    torch.testing.assert_close(zoo.load("hf:org/sharded")(IDS), twin(IDS).logits, atol=1e-4, rtol=1e-4)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub on this machine with one repository, org/repo; gives its folder and the paths asked for."""
    repository, asked = tmp_path / "served", []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            file = repository / self.path.rpartition("/")[2]
            content = file.read_bytes() if file.is_file() else None
            self.send_response(404 if content is None else 200)
            self.send_header("X-Repo-Commit", "c" * 40)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            return content

        def do_GET(self):
            content = self.do_HEAD()
            asked.append(self.path.rpartition("/")[2])
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield repository, asked
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


def test_a_hub_model_is_downloaded_with_every_file_it_is_checked_against(folder, served):
    repository, asked = served
    shutil.copytree(folder, repository)
    assert same(zoo.load("hf:org/repo"), network())
    assert sorted(asked) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_of_a_sharded_hub_model_only_the_shard_with_the_embedding_is_downloaded(tmp_path, served):
    repository, asked = served
    twin = transformers.GPT2LMHeadModel(transformers.GPT2Config(**network().hf_config()))
    twin.save_pretrained(repository, max_shard_size="5KB")
    assert torch.equal(zoo.embedding("hf:org/repo"), twin.transformer.wte.weight)
    shard = json.loads((repository / "model.safetensors.index.json").read_text())["weight_map"]
    assert [name for name in asked if name.endswith(".safetensors")] == [shard["transformer.wte.weight"]]


@pytest.mark.parametrize("strange", [".git/HEAD", "notes.txt", "step-000007/plot.png", "runs/a/last.ckpt"])
def test_a_folder_with_anything_else_in_it_is_not_replaced(folder, tmp_path, refused, strange):
    (folder / strange).parent.mkdir(parents=True, exist_ok=True)
    (folder / strange).write_text("mine")
    with refused("holds other files"):
        zoo.save(network(seed=1), folder)
    assert (folder / strange).read_text() == "mine"
    assert same(Folder.here("model", folder).load(), network())


def test_a_model_of_another_kind_is_not_replaced(tmp_path, refused):
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**network().hf_config())).save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "generation_config.json").unlink()
    with refused("holds a model that is not a zoo checkpoint"):
        zoo.save(network(), tmp_path / "theirs")


def test_a_link_to_a_checkpoint_stays_one(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    zoo.save(network(seed=1), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert same(zoo.load(folder), network(seed=1))


def test_a_disk_that_fails_between_two_renames_leaves_the_old_checkpoint(folder, monkeypatch):
    renames, rename = [], os.replace

    def fails_once(old, new):
        renames.append(new)
        if len(renames) == 2:
            raise OSError(28, "No space left on device")
        rename(old, new)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(OSError, match="No space"):
        zoo.save(network(seed=1), folder)
    assert same(zoo.load(folder), network())
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    with refused("is the current folder"):
        zoo.save(network(), ".")


def test_provenance_is_kept_as_json_keeps_it(tmp_path):
    folder = zoo.save(network(), tmp_path / "model", provenance={"seeds": {2: 1, 10: (2, 3)}})
    assert checkpoint_config.read(folder)["provenance"] == {"seeds": {"2": 1, "10": [2, 3]}}
    assert same(zoo.load(folder), network())


def test_a_config_of_before_there_were_hashes_of_it_is_called_old(folder, refused):
    config = json.loads((folder / "config.json").read_text())
    del config["zoo"]["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    with refused("older version of the zoo"):
        zoo.load(folder)


def test_a_path_is_a_folder_even_if_it_is_called_like_a_shipped_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo.save(network(), "gpt2-mini.learned")
    assert same(zoo.load(Path("gpt2-mini.learned")), network())
    assert not same(zoo.load("gpt2-mini.learned"), network())


def test_weights_are_rounded_to_half_the_size_and_load_as_float32(folder, tmp_path, refused):
    export(folder, tmp_path / "half", dtype="float16")
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "half")]
    assert 0.5 < sizes[1] / sizes[0] < 0.6
    half = zoo.load(tmp_path / "half").state_dict()
    for name, tensor in network().state_dict().items():
        assert torch.equal(half[name], tensor.half().float())
    assert "rounded to float16" in zoo.info(str(tmp_path / "half"))
    large = network()
    large.W_E[0, 0] = 1e6
    with refused("does not fit into torch.float16: its largest entry is 1e"):
        zoo.save(large, tmp_path / "large", dtype=torch.float16)
    with refused("dtype is 'int8'; it must be one of float32, float16"):
        export(folder, tmp_path / "x", dtype="int8")


def test_steps_are_exported_side_by_side_and_nothing_is_written_where_it_is_read(folder, ckpt, tmp_path, refused):
    for step in (0, 7, 9):
        zoo.save(network(seed=step), tmp_path / "all" / f"step-{step:06}", step=step)
    some = export(tmp_path / "all", tmp_path / "some", steps=[9, 0])
    assert sorted(p.name for p in some.iterdir()) == ["README.md", "step-000000", "step-000009"]
    assert same(zoo.load(some, step=0), network())
    assert same(zoo.load(some), network(seed=9))
    assert zoo.info(str(some)).startswith("# some\n")
    for steps, message in (([7, 8], "no step 8; it has 0, 7, 9"), ([], "steps is empty")):
        with refused(message):
            export(tmp_path / "all", tmp_path / "none", steps=steps)
    with refused("holds one step only"):
        export(ckpt, tmp_path / "none", steps=[7])
    for target in (tmp_path / "all", tmp_path):
        with refused("would overwrite the source"):
            export(tmp_path / "all", target, steps=[0])
    assert not (tmp_path / "none").exists()
