import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import zoo
from zoo.__main__ import main
from zoo.cli import run
from zoo.config_files import SHIPPED, about, expand_configs, portable_text, read_config, shipped
from zoo.models import GPT2
from zoo.running.study_files import load
from zoo.study_command import _parse
from zoo.training_process import config_texts

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / "cli_configs").rglob("*.yaml") if p.parent.name != "study")
FEW_STEPS = [
    *("--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.val_check_interval", "2"),
    *("--trainer.accumulate_grad_batches", "1", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    *("--trainer.enable_progress_bar", "false", "--trainer.logger", "false"),
]
SHORT_TEXT = ["--data.context_length", "16", "--data.batch_size", "2", "--model.compile", "false"]
TINY = ["--model.d_model", "16", "--model.n_layers", "1", "--model.n_heads", "2"]


def local_stand_ins(config, tmp_path, tiny_corpus):
    """Arguments that make a config small and point it at local data where it names something to download."""
    families = {"sae": small_autoencoder, "basis_pursuit": small_dictionary, "toy": small_toy, "llc": small_llc}
    return families.get(config.parent.name, small_gpt2)(config, tmp_path, tiny_corpus)


def small_gpt2(config, tmp_path, tiny_corpus):
    text, args = config.read_text(), list(SHORT_TEXT)
    if "init_from:" in text:
        source = zoo.save(GPT2(300, 16, 16, 1, 2), tmp_path / "weights")
        args += ["--model.init_from", str(source), "--data.tokenizer", "TrainedBPE"]
        return [*args, "--data.tokenizer.vocab_size=300"]
    args += TINY
    if "base: small_" in text:  # what the config builds on
        text += (config.parent / "small_124m.yaml").read_text()
    if "source: gpt2-stdlib.learned" in text or "source: hf:" in text:
        n_rows = 300 if "HubDataset" in text else 4096
        np.save(tmp_path / "W_E.npy", np.random.default_rng(0).normal(size=(n_rows, 16)))
        args += ["--model.embedding.source", str(tmp_path / "W_E.npy")]
    if "LowCoherenceEmbedding" in text:
        args += ["--model.embedding.max_cosine", "0.97"]
    corpus = {"LocalFiles": ("paths", f"[{tiny_corpus}]"), "HubDataset": ("name", str(tiny_corpus))}
    for name, (key, value) in corpus.items():
        if name in text:
            args += [f"--data.corpus.{key}", value, "--data.tokenizer", "TrainedBPE"]
            args += ["--data.corpus.config", "default"] if "sample-10BT" in text else []
            args += ["--data.tokenizer.vocab_size", "300", "--data.val_fraction", "0.2", "--data.test_fraction", "0.2"]
    return args


def small_autoencoder(config, tmp_path, tiny_corpus):
    text, args = config.read_text(), ["--model.sae.d_sae", "300", "--data.batch_size", "32"]
    args += [
        "--model.optimizer.decay_fraction",
        "0",
    ]  # or the learning rate is 0 at the end that the resumed run prolongs
    args += local_rows(text, tmp_path)
    if "ActivationsDataModule" in text:
        args += ["--data.model", "gpt2-stdlib.learned", "--data.layer", "2", "--data.sequence_length", "33"]
        args += ["--data.corpus", "LocalFiles", "--data.corpus.paths", f"[{tiny_corpus}]", "--data.val_contexts", "2"]
        args += ["--data.val_fraction", "0.2", "--data.test_fraction", "0.2"]
    return args


def small_dictionary(config, tmp_path, tiny_corpus):
    text = config.read_text()
    fewer_rows = ["--data.n_rows", "2000"] if "n_rows:" in text else []
    return ["--model.n_atoms", "300", *fewer_rows, *local_rows(text, tmp_path)]


def small_toy(config, tmp_path, tiny_corpus):
    args = ["--data.n_seeds", "2", "--data.batch_size", "8", "--data.n_validation", "8"]
    args += ["--model.optimizer.decay_fraction", "0"]  # as for autoencoders
    if "gates" not in (settings := config.read_text()) and "u_and" not in settings:
        return args
    groups = "4" if "n_groups" in settings else "1"
    return [*args, "--data.n_features", "16", "--model.n_groups", groups, "--model.d_mlp", "6"]


def small_llc(config, tmp_path, tiny_corpus):
    family = {"toy_superposition": small_toy, "sae": small_autoencoder}.get(config.stem, small_gpt2)
    args = family(config, tmp_path, tiny_corpus)
    return [*args, "--data.n_features", "6"] if family is small_toy else args


def local_rows(text, tmp_path):
    if "source: hf:" not in text:
        return []
    np.save(tmp_path / "W_E.npy", np.random.default_rng(0).normal(size=(4096, 16)).astype(np.float32))
    return ["--data.source", str(tmp_path / "W_E.npy")]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "cli_configs")))
def test_every_config_trains_and_resumes(config, tmp_path, tiny_corpus, stdlib_cache, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOO_CACHE", str(stdlib_cache))
    monkeypatch.setattr(sys, "argv", ["zoo"])
    run_dir = tmp_path / "run"
    args = ["--config", str(config), "--run_dir", str(run_dir), *FEW_STEPS]
    args += local_stand_ins(config, tmp_path, tiny_corpus)
    assert run(["fit", *args]) == 0
    family = "sae" if config.stem == "sae" else config.parent.name
    fitted = {"sae": {"scale"}, "basis_pursuit": {"scale", "b_dec"}}.get(family)  # once, to the data
    judged_by = "validation loss" if fitted is None else "validation fvu"
    assert judged_by in capsys.readouterr().out
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    before = zoo.load(checkpoint).state_dict()
    assert run(["fit", "--ckpt_path", str(checkpoint), "--trainer.max_steps", "3"]) == 0
    after = zoo.load(checkpoint).state_dict()
    settings = yaml.safe_load((run_dir / "config.yaml").read_text())["model"]["init_args"]
    frozen = fitted or set()
    if settings.get("trained_first_layer") is False:
        frozen |= {"stages.0.W_in", "stages.0.b_in"}
    if settings.get("first_layer", "trained") != "trained":
        frozen |= {"W_in", "b_in"}
    if config.parent.name == "toy":
        frozen |= dict(zoo.load(checkpoint).named_buffers()).keys()
    if settings.get("frozen_rows") == "all" and settings["trained_rows"] is None:
        W_E = before["transformer.wte.weight"]
        frozen |= {name for name in ("transformer.wte.weight", "lm_head.weight") if torch.equal(before[name], W_E)}
    assert {name for name in before if not torch.equal(before[name], after[name])} == before.keys() - frozen


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "cli_configs")))
def test_every_config_is_short_and_explains_every_value(config):
    lines = config.read_text().splitlines()
    assert len(lines) < 40
    assert lines[0].startswith("# ")
    values = [line for line in lines if ": " in line and not line.lstrip().startswith(("#", "base:", "class_path:"))]
    plain = [line for line in values if "class_path" not in line and " # " not in line]
    assert not plain, f"no word on {plain}"


def test_a_base_is_found_beside_the_config_that_names_it(tmp_path):
    folder = tmp_path / "deep"
    shutil.copytree(ROOT / "cli_configs" / "gpt2", folder)
    expanded = expand_configs(["fit", "--config", str(folder / "learned.yaml"), "--trainer.max_steps", "1"])
    assert expanded[1:5] == ["--config", str(folder / "base.yaml"), "--config", str(folder / "learned.yaml")]


LEARNED = ["--config", str(SHIPPED / "gpt2" / "base.yaml"), "--config", str(SHIPPED / "gpt2" / "learned.yaml")]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_names_of_the_shipped_configs_are_their_paths():
    assert list(shipped()) == sorted(
        str(p.relative_to(ROOT / "cli_configs").with_suffix("")) for p in (ROOT / "cli_configs").rglob("*.yaml")
    )


@pytest.mark.parametrize("folder", ["elsewhere", "checkout"])
@pytest.mark.parametrize("name", ["gpt2/learned", "gpt2/learned.yaml", "cli_configs/gpt2/learned.yaml"])
def test_a_shipped_config_is_found_by_its_name_in_any_folder(elsewhere, monkeypatch, folder, name):
    if folder == "checkout":
        monkeypatch.chdir(ROOT)
    for words in (["--config", name], [f"--config={name}"], ["-c", name]):
        files = expand_configs(words)
        assert [Path(file).resolve() for file in files[1::2]] == [Path(file).resolve() for file in LEARNED[1::2]]


def test_a_file_takes_precedence_over_a_shipped_config_of_its_name_and_a_folder_does_not(elsewhere):
    (elsewhere / "quickstart.yaml").write_text("seed_everything: 3")
    (elsewhere / "gpt2" / "learned").mkdir(parents=True)
    assert expand_configs(["--config", "quickstart.yaml"]) == ["--config", "quickstart.yaml"]
    assert expand_configs(["--config", "quickstart"]) == ["--config", str(SHIPPED / "quickstart.yaml")]
    assert expand_configs(["--config", "gpt2/learned"]) == LEARNED


def test_the_base_of_a_users_config_is_a_file_beside_it_or_a_shipped_config(elsewhere):
    (elsewhere / "deep").mkdir()
    (elsewhere / "deep" / "first.yaml").write_text("base: gpt2/learned")
    (elsewhere / "deep" / "second.yaml").write_text("base: first.yaml")
    own = ["--config", "deep/first.yaml", "--config", "deep/second.yaml"]
    assert expand_configs(["--config", "deep/second.yaml"]) == [*LEARNED, *own]
    (elsewhere / "deep" / "gpt2").mkdir()
    (elsewhere / "deep" / "gpt2" / "learned").write_text("seed_everything: 1")
    assert expand_configs(["--config", "deep/second.yaml"]) == ["--config", "deep/gpt2/learned", *own]


@pytest.mark.parametrize("name", shipped())
def test_a_printed_config_means_the_same_in_any_folder(name, elsewhere, capsys):
    assert main(["configs", name]) == 0
    (elsewhere / "base.yaml").write_text("seed_everything: 9")
    (elsewhere / "my.yaml").write_text(capsys.readouterr().out)
    *bases, mine = expand_configs(["--config", "my.yaml"])[1::2]
    *known_bases, known = expand_configs(["--config", name])[1::2]
    assert bases == known_bases
    assert {**read_config(Path(mine)), "base": None} == {**read_config(Path(known)), "base": None}
    comments = [line for line in Path(known).read_text().splitlines() if line.startswith("#")]
    assert [line for line in portable_text(name).splitlines() if line.startswith("#")] == comments


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_config_is_described_by_one_sentence(name):
    assert re.fullmatch(r"[A-Z][^\n]{10,160}[.?]", about(shipped()[name]))


def test_a_study_takes_a_shipped_config_by_name(elsewhere):
    embedding, frozen = (load(name)[0] for name in ("embedding", "frozen-embedding"))
    _, study = _parse(embedding, "embedding", ["--config", "study/embedding_small", "--out", "x"], None)
    assert (study.seeds, study.training_steps) == (2, 32)
    _, study = _parse(frozen, "frozen-embedding", ["--config", "gpt2/learned", "--out", "x"], None)
    assert study.fit_config == "gpt2/learned"
    assert [yaml.safe_load(text).get("base") for text in study.tasks()[0].configs] == [None, None]
    assert config_texts("cli_configs/gpt2/learned.yaml") == study.tasks()[0].configs


WRONG = {
    "nothing": "config 'nothing' cannot be read: it is neither a file nor a shipped config; `python -m zoo configs`",
    "quikstart.yaml": "did you mean 'quickstart'?",
    "learned": "did you mean 'gpt2/learned'?",
    "gpt2": "'gpt2' cannot be read: it is neither a file nor a shipped config; `python -m zoo configs gpt2` lists",
    "cli_configs/toy": "`python -m zoo configs toy` lists the shipped ones",
    "folder": "config 'folder' cannot be read: it is a folder",
    "lost.yaml": "config lost.yaml: base 'gpt2/lerned' cannot be read: it is neither a file nor a shipped config",
    "latin.yaml": "config 'latin.yaml' cannot be read: it is not UTF-8 text",
    "/proc/self/mem": "config '/proc/self/mem' cannot be read: Input/output error",
    "": "config '' cannot be read: it is neither a file nor a shipped config",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_config_that_is_not_there_gets_one_line(elsewhere, capsys, name):
    (elsewhere / "folder").mkdir()
    (elsewhere / "lost.yaml").write_text("base: gpt2/lerned")
    (elsewhere / "latin.yaml").write_bytes("# Größe\n".encode("latin-1"))
    for command in (["fit"], ["study", "planted-atoms", "--out", "x"]):
        assert main([*command, "--config", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: config ")
        assert WRONG[name] in line


GPT2_TOKENS = 50_257
STATED = re.compile(r"([\d.]+) (million parameters|million are trained|billion tokens)")


def with_bases(config):
    """Settings of a config and of those it builds on."""
    found = {}
    for file in expand_configs(["fit", "--config", str(config)])[2::2]:
        settings = yaml.safe_load(Path(file).read_text())
        for part in ("model", "data"):
            found.setdefault(part, {}).update((settings.get(part) or {}).get("init_args") or {})
        found.setdefault("trainer", {}).update(settings.get("trainer") or {})
    return found


@pytest.mark.parametrize(
    "config", [path for path in CONFIGS if STATED.search(path.read_text())], ids=lambda path: path.stem
)
def test_a_config_has_as_many_parameters_and_tokens_as_it_states(config):
    settings = with_bases(config)
    model, data, trainer = settings["model"], settings["data"], settings["trainer"]
    assert data["tokenizer"]["init_args"]["name"] == "openai-community/gpt2"
    sizes = {name: model[name] for name in ("d_model", "n_layers", "n_heads", "tied")}
    with torch.device("meta"):
        net = GPT2(GPT2_TOKENS, data["context_length"], **sizes)
    parameters = sum(p.numel() for p in net.parameters())
    frozen = net.W_E.numel() if model["frozen_rows"] == "all" else 0
    per_step = data["batch_size"] * data["context_length"] * trainer["accumulate_grad_batches"]
    true = {
        "million parameters": parameters / 1e6,
        "million are trained": (parameters - frozen) / 1e6,
        "billion tokens": per_step * trainer["max_steps"] / 1e9,
    }
    for number, what in STATED.findall(config.read_text()):
        assert round(true[what], len(number.partition(".")[2])) == float(number), what


def test_the_configs_that_state_numbers_are_those_of_gpt2_small():
    stating = {path.stem for path in CONFIGS if STATED.search(path.read_text())}
    assert stating == {"small_124m", "small_untied", "small_frozen"}


def test_readme_names_every_config():
    table = (ROOT / "README.md").read_text("utf-8").partition("| config |")[2].partition("\n## ")[0]
    shared = {"base", "base_embedding"}
    missing = [name for name in shipped() if name.rpartition("/")[2] not in shared and not named_in(table, name)]
    assert missing == []


def named_in(table, name):
    """Whether a table names a config in full or by the part of its name that differs from its neighbour's."""
    folder, _, stem = name.rpartition("/")
    full = f"`{folder}/{stem}.yaml`" if folder else f"`{stem}.yaml`"
    parts = [f"`{stem}`", f"`{stem.partition('_')[0]}_...`", *(f"`..._{stem[i + 1 :]}`" for i in range(len(stem)))]
    return full in table or any(part in table for part in parts)
