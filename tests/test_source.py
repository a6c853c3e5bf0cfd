import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_gpt2 import network, same
from tokenizers import Tokenizer, models

import zoo
from zoo import checkpoints, saelens
from zoo.export import export
from zoo.models import TopKSAE
from zoo.source import Source

TOKENS = [f"t{i}" for i in range(50)]
COUNTS = list(range(50))
TOKENIZER = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, "t0")).to_str()
EVERY_FILE = {"config.json": 1, "model.safetensors": 1, "tokenizer.json": 1, "token_counts.json": 1}
LISTENERS = []


def listen(event, args):
    for opened in LISTENERS:
        if event == "open" and isinstance(args[0], str | Path) and "w" not in str(args[1]):
            opened.append(Path(args[0]))


sys.addaudithook(listen)  # which stays


@pytest.fixture
def reads_of(monkeypatch):
    """A function that calls another and counts the files below a folder that it opened to read, by name."""
    safe_open = checkpoints.safe_open

    def told(path, **options):
        for opened in LISTENERS:
            opened.append(Path(path))
        return safe_open(path, **options)

    monkeypatch.setattr(checkpoints, "safe_open", told)

    def reads(folder, call):
        LISTENERS.append(opened := [])
        try:
            call()
        finally:
            LISTENERS.remove(opened)
        return Counter(path.name for path in opened if folder in path.parents and path.is_file())

    return reads


def written(folder, step=7, seed=0, tokenizer=TOKENIZER, counts=COUNTS):
    return zoo.save(network(seed=seed), folder, step, {"seed": 4}, tokenizer, token_counts=counts)


def lightning(path, step=9, seed=0):
    part = {"class": "GPT2", "init_args": network().config, "step": step, "provenance": {"seed": 4}}
    state = {f"net.{name}": tensor for name, tensor in network(seed=seed).state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    told = part | {"tokenizer_json": TOKENIZER, "token_counts": COUNTS}
    torch.save({"state_dict": state, "zoo": told}, path)
    return path


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "model")


@pytest.fixture
def run(tmp_path):
    """A run that kept steps 0 and 9 and was trained on to 12."""
    for step in (0, 9):
        written(tmp_path / "run" / "steps" / f"step-{step:06}", step, seed=step)
    lightning(tmp_path / "run" / "checkpoints" / "last.ckpt", 12, seed=12)
    return tmp_path / "run"


def test_a_load_and_an_export_read_each_file_once(folder, run, tmp_path, reads_of):
    assert reads_of(folder, lambda: zoo.load(folder)) == EVERY_FILE
    assert reads_of(folder, lambda: zoo.embedding(folder)) == {"config.json": 1, "model.safetensors": 1}
    assert reads_of(folder, lambda: export(folder, tmp_path / "a")) == EVERY_FILE
    twice = dict.fromkeys(EVERY_FILE, 2)
    assert reads_of(run, lambda: export(run, tmp_path / "b", steps=[0, 9])) == twice  # which are two checkpoints
    assert reads_of(run, lambda: export(run, tmp_path / "c")) == {"last.ckpt": 2}  # its checksums, its numbers
    lightning(run / "checkpoints" / "last.ckpt", 9)
    assert reads_of(run, lambda: export(run, tmp_path / "d")) == {**EVERY_FILE, "last.ckpt": 2}


def test_what_was_read_is_not_read_again(folder, reads_of):
    source = Source.open(folder)

    def read():
        return source.kind, source.zoo_part(), source.token_strings(), source.token_counts().tolist()

    first, again = read(), []
    assert reads_of(folder, lambda: again.extend(read())) == {}
    assert (*again,) == first
    assert first[2:] == (TOKENS, COUNTS)


def test_opening_reads_nothing_and_neither_it_nor_the_module_needs_torch(folder, reads_of):
    assert reads_of(folder, lambda: Source.open(folder)) == {}
    code = f"""
import sys
from zoo.source import Source, info
source = Source.open({str(folder)!r})
source.kind, source.steps, source.provenance(), source.tokenizer_json(), info({str(folder)!r})
print([m for m in ('torch', 'numpy', 'huggingface_hub', 'safetensors', 'tokenizers') if m in sys.modules])"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(zoo.__file__).parents[1]
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_same_bytes_at_another_place_have_the_same_fingerprints(folder, tmp_path):
    before = Source.open(folder)
    prints = before.fingerprint(), before.weights_fingerprint()
    assert all(len(digest) == 64 for digest in prints)
    shutil.move(folder, tmp_path / "elsewhere")
    last = lightning(tmp_path / "last.ckpt")
    for place in (tmp_path / "elsewhere", last, export(last, tmp_path / "exported")):
        moved = Source.open(place)
        assert (moved.fingerprint(), moved.weights_fingerprint()) == prints
    np.save(tmp_path / "W.npy", network().W_E.detach().numpy())
    (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS))
    (tmp_path / "W.token_counts.json").write_text(json.dumps(COUNTS))
    assert Source.open(tmp_path / "W.npy").fingerprint() == prints[0]
    assert (before.fingerprint(), before.weights_fingerprint()) == prints  # which is remembered


def test_a_changed_weight_token_count_or_argument_changes_the_fingerprints_that_tell_of_it(folder, tmp_path):
    def prints(name, edit=lambda model: None, **changes):
        model = network()
        with torch.no_grad():
            edit(model)
        given = {"tokenizer_json": TOKENIZER, "token_counts": COUNTS} | changes
        source = Source.open(zoo.save(model, tmp_path / name, 7, **given))
        return source.fingerprint(), source.weights_fingerprint()

    same_prints = prints("same")
    in_embedding = prints("in", lambda model: model.W_E[3, 3].add_(1e-6))
    elsewhere = prints("out", lambda model: model.transformer.wpe.weight[3, 3].add_(1e-6))
    others = [
        prints("tokens", tokenizer_json=TOKENIZER.replace("t49", "T49")),
        prints("counts", token_counts=[1, *COUNTS[1:]]),
        prints("neither", tokenizer_json=None, token_counts=None),
    ]
    assert in_embedding[0] != same_prints[0]
    assert elsewhere[0] == same_prints[0]
    assert len({same_prints[1], in_embedding[1], elsewhere[1]}) == 3
    assert len({same_prints[0], *(embedding for embedding, _ in others)}) == 4
    assert {weights for _, weights in others} == {same_prints[1]}


def test_every_step_has_its_fingerprint(run):
    source = Source.open(run)
    assert len({source.fingerprint(step) for step in (0, 9, None)}) == 3
    assert source.fingerprint(9) == Source.open(run / "steps").fingerprint()


def test_a_pickled_source_is_small_equal_and_knows_its_fingerprints(folder, reads_of):
    source = Source.open(folder)
    source.load(), source.token_strings()
    prints = source.fingerprint(), source.weights_fingerprint()
    pickled = pickle.dumps(source)
    assert len(pickled) < 400 + len(str(folder))
    again = pickle.loads(pickled)
    assert (again, hash(again)) == (source, hash(source))
    known = []
    assert reads_of(folder, lambda: known.extend([again.fingerprint(), again.weights_fingerprint()])) == {}
    assert (*known,) == prints
    assert same(again.load(), network())
    shutil.rmtree(folder)
    assert pickle.loads(pickled).fingerprint() == prints[0]


def test_sources_are_equal_if_their_names_are(folder, tmp_path):
    source = Source.open(folder)
    assert Source.open(source) is source
    assert source == Source.open(str(folder))
    assert {source, Source.open(str(folder))} == {source}
    assert source not in (Source.open(f"{folder}/"), str(folder))


def kinds(place):
    """Kind -> a source of it."""
    sae = TopKSAE(d_in=8, d_sae=32, k=3)
    W = {"wte.weight": network().W_E.detach()}
    for name, config in {
        "hf": {"model_type": "llama"},
        "dictionary": {"trainer": {"dict_class": "AutoEncoder"}},
    }.items():
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps(config))
    (place / "sparsify").mkdir()
    (place / "sparsify" / "cfg.json").write_text('{"expansion_factor": 4}')
    (place / "gemma").mkdir()
    np.savez(place / "gemma" / "params.npz", W_enc=np.zeros((2, 3), np.float32))
    save_file(W, place / "hf" / "model.safetensors")
    save_file(W, place / "W.safetensors")
    np.save(place / "W.npy", W["wte.weight"].numpy())
    return {
        "zoo checkpoint": written(place / "model"),
        "Lightning checkpoint": lightning(place / "new" / "checkpoints" / "last.ckpt"),
        "run": place / "new",
        "Hugging Face": place / "hf",
        "SAELens": saelens.write(sae, place / "sae"),
        "sparsify": place / "sparsify",
        "dictionary_learning": place / "dictionary",
        "Gemma Scope": place / "gemma",
        ".npy": place / "W.npy",
        ".safetensors": place / "W.safetensors",
        "{step}": place / "{step}.npy",
    }


def test_it_says_of_what_kind_it_is(tmp_path, run, hub):
    for kind, place in kinds(tmp_path).items():
        assert Source.open(place).kind == kind
        assert Source.open(place).steps == ()
    shutil.rmtree(run / "checkpoints")
    assert Source.open(run).kind == "run"
    assert Source.open(run / "steps").kind == Source.open("gpt2-mini.learned").kind == "zoo checkpoint"
    hub("org/repo", tmp_path / "hf")
    assert Source.open("hf:org/repo").kind == "Hugging Face"


def test_it_says_which_steps_it_holds_and_gives_them(run):
    source = Source.open(run)
    assert source.steps == Source.open(run / "steps").steps == (0, 9)
    for step, seed in ((0, 0), (9, 9), (None, 12)):
        assert same(source.load(step), network(seed=seed))
        assert torch.equal(source.embedding(step), network(seed=seed).W_E)
        assert source.token_strings(step) == TOKENS
        assert source.zoo_part(step)["step"] == (12 if step is None else step)
        assert source.provenance(step) == {"seed": 4}
    assert source.folder() == run / "steps" / "step-000009"
    assert Source.open("gpt2-mini.learned").steps[-1] == 4096


@pytest.mark.parametrize("name", ["{step}.npy", "{step}.safetensors", "{step}.ckpt", "{step}/model", "all-{step}"])
def test_a_name_with_step_in_it_stands_for_the_names_of_all_steps(tmp_path, refused, name):
    for step in (0, 512):
        place = Path(str(tmp_path / name).replace("{step}", str(step)))
        if place.suffix == ".npy":
            np.save(place, network(seed=step).W_E.detach().numpy())
        elif place.suffix == ".safetensors":
            save_file({"wte.weight": network(seed=step).W_E.detach()}, place)
        else:
            lightning(place, seed=step) if place.suffix else written(place, step, seed=step)
    source = Source.open(tmp_path / name)
    assert source.steps == ()
    for step in (512, 0):
        assert torch.equal(source.embedding(step), network(seed=step).W_E)
        assert source.fingerprint(step) == Source.open(str(source.name).replace("{step}", str(step))).fingerprint()
    with refused("contains {step}; choose a training step with step"):
        source.embedding()
    with refused("7.*does not exist|no checkpoint .*7"):
        source.embedding(7)


@pytest.mark.parametrize("revision", ["step{}", "checkpoint-{}"])
def test_steps_that_a_hub_repository_keeps_as_revisions_are_found(tmp_path, hub, refused, revision):
    for step in (0, 512):
        hub("org/repo", written(tmp_path / str(step), seed=step), revision=revision.format(step))
    source = Source.open("hf:org/repo")
    assert source.steps == ()
    for step in (0, 512):
        assert same(source.load(step), network(seed=step))
        assert source.token_counts(step).tolist() == COUNTS
    with refused(
        "hf:org/repo has no step 8, neither as a folder nor as step{step} or checkpoint-{step}: .*step-000008"
    ):
        source.load(8)
    assert same(Source.open(f"hf:org/repo@{revision.format('{step}')}").load(512), network(seed=512))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no-such-name",
            "no checkpoint 'no-such-name': it is neither the name of a pretrained checkpoint nor a folder; `",
        ),
        ("gpt2-mini.learnt", r"did you mean gpt2-mini\.learned\?"),
        ("", "'' is not the name or folder of a checkpoint"),
        ("hf:org//repo", "is not a name on the hub; write hf:org/repo"),
        ("notes.txt", r"notes\.txt is a file; expected a folder, a \.ckpt or"),
        *[
            (f"none{suffix}", rf"none\{suffix} does not exist")
            for suffix in (".ckpt", ".npy", ".npz", ".bin", ".gguf", ".safetensors")
        ],
    ],
)
def test_what_does_not_exist_is_refused_when_it_is_opened(tmp_path, monkeypatch, refused, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    for read in (Source.open, zoo.load, zoo.embedding):
        with refused(message):
            read(name)


def test_a_step_or_a_folder_that_is_not_there_is_refused(run, tmp_path, refused):
    for kind, place in kinds(tmp_path).items():
        source = Source.open(place)
        expected = {
            "zoo checkpoint": "holds step 7 only, not step 3",
            "run": "has no step 3: only LogSpacedCheckpoints keeps single steps",
        }
        if kind != "{step}":
            with refused(expected.get(kind, "holds one step only")):
                source.load(3)
    with refused("has no step 3; it has 0, 9"):
        Source.open(run).load(3)
    for name in ("hf:org/repo", "{step}/model"):
        with refused("is not the name or folder of a checkpoint"):
            Source.open(name).folder()


def test_a_path_is_a_folder_even_if_it_is_called_like_a_shipped_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "gpt2-mini.learned")
    path, name = Source.open(Path("gpt2-mini.learned")), Source.open("gpt2-mini.learned")
    assert path != name
    assert same(pickle.loads(pickle.dumps(path)).load(), network())
    assert name.folder().is_relative_to(Path(zoo.__file__).parent)


def test_damage_is_told_alike_however_often_one_asks(folder, refused):
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"seed": 4', '"seed": 5'))
    source = Source.open(folder)
    for _ in range(2):
        with refused("config.json is damaged: its hash differs"):
            source.load()


def test_what_is_done_to_an_embedding_leaves_the_source_alone(tmp_path):
    for place in (written(tmp_path / "model"), lightning(tmp_path / "last.ckpt")):
        source = Source.open(place)
        source.embedding().zero_()
        assert torch.equal(source.embedding(), network().W_E)
