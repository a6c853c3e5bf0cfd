import json
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo import cli
from zoo.__main__ import main

ROOT = Path(__file__).parents[1]
FIT = ["fit", "--config", "cli_configs/gpt2/base.yaml", "--trainer.max_steps", "1"]
FIT += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `python -m zoo ...` in this process: exit code, standard output, the error's lines."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["zoo"])

    def call(*args):
        own = "--run_dir" in args or "--ckpt_path" in args or args[0] != "fit"
        code = main([*map(str, args), *([] if own else ["--run_dir", str(tmp_path / "run")])])
        out, err = capsys.readouterr()
        return code, out, [line for line in err.splitlines() if line.startswith("error: ")]

    return call


MISTAKES = {
    "model.d_modle=64": "model (FrozenEmbeddingGPT2) has no setting 'd_modle'; did you mean 'd_model'?",
    "model=FrozenEmbeddingGTP2": "there is no class 'FrozenEmbeddingGTP2'; did you mean 'FrozenEmbeddingGPT2'?",
    "model.embedding=GausianEmbedding": "did you mean 'GaussianEmbedding'?",
    "model.d_model=big": "model.d_model is 'big'; expected int",
    "model.optimizer.learning_rate=fast": "model.optimizer.learning_rate is 'fast'; expected float",
    "model.n_heads=3": "d_model 128 is not a multiple of n_heads 3",
    "model.frozen_rows=9-5": "'9-5' is not within the vocabulary, 0-4095",
    "model.vocab_size=999": "model.vocab_size is 999, and the data's vocab_size is 4096",
    "model.init_from=nowhere": "no checkpoint 'nowhere'",
    "trainer.max_stepz=3": "unknown argument --trainer.max_stepz; did you mean 'trainer.max_steps'?",
    "trainer.accelerator=gpuu": "invalid accelerator name",
    "data=TextDataModul": "did you mean 'TextDataModule'?",
    "data.batch_size=0": "batch_size is 0; it must be at least 1",
    "model.class_path=GPT2": "class 'GPT2' cannot be used here",
    "model.optimizer.learning_rate=-1": "optimizer.learning_rate is -1.0; it must not be negative",
    "model.temperature=-1": "temperature is -1.0 (it must be at least 0)",
    "trainer.val_check_interval=0": "trainer.val_check_interval is 0; it must be positive",
    "trainer.overfit_batches=2": "no effect on the zoo's loaders",
    "trainer.callbacks+=EmbeddingDrift": "trainer.callbacks names EmbeddingDrift twice",
    "seed_everything=-4": "-4",
    "run_dir=/proc/nowhere": "run_dir /proc/nowhere cannot be written",
    "data.prompts=[]": "give at least one text",
    "config=cli_configs/quikstart.yaml": "config 'cli_configs/quikstart.yaml' cannot be read: it is neither a file nor",
    "ckpt_path=nowhere.ckpt": "ckpt_path 'nowhere.ckpt' does not exist",
}


@pytest.mark.parametrize("argument", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(command, tmp_path, argument):
    args = FIT if argument.startswith("run_dir") else [*FIT, "--run_dir", tmp_path / "run"]
    code, _, errors = command(*args, *(["--run_dir", "/proc/nowhere"] if args is FIT else [f"--{argument}"]))
    assert code == 2
    assert len(errors) == 1
    assert MISTAKES[argument] in errors[0]


SAE = ["fit", "--config", "cli_configs/sae/topk_embedding.yaml", "--trainer.max_steps", "1"]
SAE += ["--trainer.enable_progress_bar", "false"]
SAE_MISTAKES = {
    "model.sae=TopSAE": "there is no class 'TopSAE'; did you mean 'TopKSAE'?",
    "model.sae.l1_coefficient=3": "has no setting 'l1_coefficient'; it is a setting of GatedSAE, ReLUSAE",
    "model.sae.d_in=64": "model.d_in is 64, and the data's d_in is 128",
    "model.sae.k=513": "k is 513; it must be a whole number, at least 1 and at most d_sae, which is 512",
    "model.init_from=gpt2-stdlib.learned": "is a GPT2, but this run trains a TopKSAE",
    "model=FrozenEmbeddingGPT2": "takes batches of tokens, and those of EmbeddingRowsDataModule hold vectors",
    "data=TextDataModule": "those of TextDataModule hold tokens; use ActivationsDataModule or EmbeddingRowsDataModule",
    "data.step=7": "gpt2-stdlib.learned holds step 600 only, not step 7",
    "data.source=nowhere": "no checkpoint 'nowhere'",
    "trainer.callbacks+=SplicedLoss": "SplicedLoss",
}


@pytest.mark.parametrize("argument", SAE_MISTAKES)
def test_a_mistake_about_autoencoders_gets_one_line_and_exit_code_2(command, argument):
    code, _, errors = command(*SAE, f"--{argument}")
    assert code == 2
    assert len(errors) == 1
    assert SAE_MISTAKES[argument] in errors[0]


def test_an_autoencoder_has_nothing_to_predict(command, tmp_path):
    assert command(*SAE)[0] == 0
    code, _, [error] = command("predict", "--ckpt_path", tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert code == 2
    assert "SparseAutoencoder has nothing to predict" in error


@pytest.mark.parametrize("arguments", [["sparse-rows"], ["sparse-rows", "--out", "x", "--seeds", "two"], ["sparse"]])
def test_a_study_asked_for_wrongly_gets_one_line(command, arguments, capsys):
    code, _, errors = command("study", *arguments)
    assert (code, len(errors)) == (2, 1)


@pytest.mark.parametrize("name", ["explicit-gates", "universal-gates", "superposition-phases", "attention-features"])
def test_every_toy_study_wants_seeds_for_its_intervals(command, name, tmp_path):
    code, _, [error] = command("study", name, "--out", tmp_path, "--seeds", "1")
    assert code == 2
    assert "seeds is 1" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embedding", "--steps", "8,2"], "steps must be ascending"),
        (["embedding", "--embedding", "nowhere"], "no checkpoint 'nowhere'"),
        (["embedding", "--train", "none.yaml"], "config 'none.yaml' cannot be read"),
        (["embedding", "--jobs", "0"], "jobs is 0"),
        (["embedding", "--tolerance", "2"], "tolerance is 2; it must be above 0 and below 1"),
        (["row-reset", "--source", "sae-topk.gpt2-mini"], "the study needs a GPT2"),
        (["row-reset", "--rows", "3"], "rows is 3"),
        (["embedding", "--families", "none.yaml"], "--families none.yaml cannot be read"),
        (["structure", "--embedding", "nowhere"], "no checkpoint 'nowhere'"),
        (["structure", "--embedding", "nowhere", "--null-draws", "0"], "null_draws is 0"),
        (["toys", "--seeds", "1"], "seeds is 1"),
    ],
)
def test_a_study_with_wrong_settings_gets_one_line(command, tmp_path, arguments, words):
    code, _, [error] = command("study", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert words in error


def test_what_a_study_does_not_take_is_refused(command, tmp_path):
    code, _, [error] = command("study", "sparse-rows", "--out", tmp_path, "--", "--trainer.max_steps", "3")
    assert code == 2
    assert "takes no arguments after --" in error


def test_no_model_points_to_the_quickstart(command):
    code, _, [error] = command("fit")
    assert code == 2
    assert "--config quickstart" in error


@pytest.mark.parametrize("content", ["[1, 2]", "model: [", "", "base: self.yaml"])
def test_a_config_that_is_no_config_gets_one_line(command, tmp_path, content):
    (tmp_path / "self.yaml").write_text(content)
    code, _, errors = command("fit", "--config", tmp_path / "self.yaml")
    assert (code, len(errors)) == (2, 1)


@pytest.fixture
def trained(command, tiny_corpus, tmp_path):
    """A run of one step in `tmp_path / "run"`."""
    args = [*FIT, "--model.d_model", 16, "--model.n_layers", 1, "--data.context_length", 16, "--data.batch_size", 2]
    args += ["--data.corpus", "LocalFiles", "--data.corpus.paths", f"[{tiny_corpus}]", "--data.val_fraction", 0.2]
    args += ["--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", 300, "--data.test_fraction", 0.2]
    assert command(*args)[0] == 0
    return args, tmp_path / "run" / "checkpoints" / "last.ckpt"


def test_a_run_is_neither_overwritten_nor_contradicted(command, trained):
    args, checkpoint = trained
    code, _, [error] = command(*args)
    assert code == 2
    assert "holds a run already; add --ckpt_path last" in error
    run_dir = checkpoint.parents[1]
    code, _, [error] = command(
        *args, "--run_dir", run_dir, "--ckpt_path", "last", "--model.optimizer.learning_rate", 0.5
    )
    assert code == 2
    assert "model.init_args.optimizer.learning_rate is 0.5" in error
    assert "was made with 0.003" in error
    code, _, [error] = command("fit", "--ckpt_path", checkpoint, "--data.batch_size", 4)
    assert code == 2
    assert "data.init_args.batch_size is 4" in error
    assert "was made with 2" in error


def test_steps_of_a_run_that_was_never_saved_are_not_taken_for_those_of_a_new_one(command, tmp_path):
    left = tmp_path / "run" / "steps" / "step-002048"
    left.mkdir(parents=True)
    fit = ("fit", "--config", ROOT / "cli_configs" / "toy" / "pentagon.yaml", "--run_dir", tmp_path / "run")
    code, _, errors = command(*fit)
    assert (code, errors) == (2, [one for one in errors if "holds steps of a run that was never saved" in one])
    quick = ("--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--data.n_seeds", "2")
    assert command(*fit, *quick, "--ckpt_path", "auto")[0] == 0
    assert not left.exists()


def test_predict_continues_every_prompt(command, trained):
    _, checkpoint = trained
    prompts = json.dumps(["the cat ", "a red"])
    code, out, _ = command("predict", "--ckpt_path", checkpoint, "--data.prompts", prompts, "--model.temperature", 0)
    assert code == 0
    first, second, _ = out[out.index("the cat ") :].split("---\n")
    assert len(first) > len("the cat ") + 10
    assert second.startswith("a red")


def test_test_and_validate_report_the_loss_of_their_own_split(command, trained):
    _, checkpoint = trained
    code, out, _ = command("test", "--ckpt_path", checkpoint)
    assert code == 0
    assert "test/loss" in out
    assert "test/bits_per_byte" in out


def test_a_damaged_token_cache_gets_one_line(command, trained, tmp_path):
    _, checkpoint = trained
    [tokens] = (tmp_path / "cache").rglob("val.bin")
    tokens.write_bytes(tokens.read_bytes()[:-2])
    code, _, [error] = command("validate", "--ckpt_path", checkpoint, "--trainer.limit_val_batches", 1)
    assert code == 2
    assert "is damaged: val.bin" in error


def test_a_checkpoint_is_not_resumed_into_another_run(command, trained, tmp_path):
    args, checkpoint = trained
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    (tmp_path / "other" / "checkpoints" / "last.ckpt").write_bytes(checkpoint.read_bytes())
    before = checkpoint.read_bytes()
    code, _, [error] = command(*args, "--ckpt_path", checkpoint, "--run_dir", tmp_path / "other")
    assert code == 2
    assert "holds a run already" in error
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_is_used_only_with_its_own_tokenizer_and_resumed_only_on_its_own_corpus(
    command, trained, tiny_corpus, tmp_path
):
    args, checkpoint = trained
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_corpus.iterdir():
        (other / path.name).write_text(path.read_text().upper())
    for name in ("validate", "predict", "fit"):
        extra = ["--data.corpus.paths", f"[{other}]"] if name != "fit" else ["--trainer.max_steps", "2"]
        if name == "fit":
            (tiny_corpus / "00.txt").write_text("The text is no longer what it was. " * 20)
        code, _, [error] = command(name, "--ckpt_path", checkpoint, *extra)
        assert code == 2
        assert "is not that of the checkpoint" in error or "corpus is not the one" in error
    code, _, [error] = command(*args, "--model.init_from", checkpoint, "--run_dir", tmp_path / "new")
    assert code == 2


@pytest.mark.parametrize("damage", ["truncated", "pickle", "other", "sizes"])
@pytest.mark.parametrize("name", ["validate", "fit"])
def test_a_checkpoint_that_does_not_fit_gets_one_line(command, trained, tmp_path, name, damage):
    _, checkpoint = trained
    extra = []
    if damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif damage == "pickle":
        checkpoint.write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    elif damage == "other":
        torch.save({"state_dict": {}}, checkpoint)
    else:
        extra = ["--model.d_model", 32]
    code, _, errors = command(name, "--ckpt_path", checkpoint, *extra)
    assert (code, len(errors)) == (2, 1)
    assert not (tmp_path / "executed").exists()


class Bomb:
    """Touches a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_a_checkpoint_needs_its_embeddings_source_no_more(command, trained, tmp_path):
    args, _ = trained
    np.save(tmp_path / "W_E.npy", np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32))
    copied = ["--model.embedding", "CopiedEmbedding", "--model.embedding.source", tmp_path / "W_E.npy"]
    run_dir = tmp_path / "copied"
    assert main([*map(str, [*args, *copied, "--run_dir", run_dir])]) == 0
    (tmp_path / "W_E.npy").unlink()
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    assert command("validate", "--ckpt_path", checkpoint)[0] == 0
    assert main(["fit", "--ckpt_path", str(checkpoint), "--trainer.max_steps", "2"]) == 0


def test_a_trial_run_leaves_the_real_run_alone(command, trained, tmp_path):
    args, _ = trained
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert command(*args, "--trainer.fast_dev_run", "true")[0] == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_corpus_of_one_document_is_told_to_split_it(command, trained, tmp_path):
    args, _ = trained
    (tmp_path / "one.txt").write_text("Only one document. " * 300)
    code, _, [error] = command(*args, "--data.corpus.paths", f"[{tmp_path / 'one.txt'}]", "--run_dir", tmp_path / "one")
    assert code == 2
    assert "LocalFiles can split files at a separator" in error


def test_a_corpus_that_cannot_be_read_is_not_taken_for_an_empty_one(command, trained, tmp_path):
    args, _ = trained
    (tmp_path / "numbers.jsonl").write_text('{"text": 3}\n')
    paths = f"[{tmp_path / 'numbers.jsonl'}]"
    code, _, [error] = command(*args, "--data.corpus.paths", paths, "--run_dir", tmp_path / "numbers")
    assert code == 2
    assert "numbers.jsonl, row 1: field 'text' holds 3, which is not text" in error


def test_export_turns_a_lightning_checkpoint_into_one_that_transformers_reads(command, trained, tmp_path):
    import transformers

    _, checkpoint = trained
    code, out, _ = command("export", checkpoint, tmp_path / "exported")
    assert code == 0
    assert str(tmp_path / "exported") in out
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "exported")
    assert theirs.num_parameters() == sum(p.numel() for p in zoo.load(checkpoint).parameters())
    code, out, _ = command("info", tmp_path / "exported")
    assert code == 0
    assert "after 1 training steps" in out


def test_list_names_what_load_loads(command):
    code, out, _ = command("list", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["name"] for row in rows] == zoo.list_models()
    for row in rows:
        assert type(zoo.load(row["name"])).__name__ == row["class"]


def test_list_shows_every_checkpoint_once_alone_or_by_a_pattern_with_the_number_of_its_names(command):
    def names_in(table):
        lines = [line.split("│") for line in table.splitlines()]
        return [cells[1].strip() for cells in lines if len(cells) > 3]

    table, _, several = command("list")[1].partition("names with ? stand for several")
    found = names_in(table)
    assert all(name in zoo.list_models() for name in found)
    groups = re.findall(r"^(\S+\?\S*)\n    (\d+) checkpoints, fvu [\d.]+ to [\d.]+, l0 16$", several, re.MULTILINE)
    for pattern, number in groups:
        assert len(zoo.list_models(pattern)) == int(number) > 1
        found += zoo.list_models(pattern)
    assert len(groups) == 6
    assert sorted(found) == zoo.list_models()
    of_one_model = command("list", "sae-resid.gpt2-mini.learned.layer-?.seed-?")[1]
    assert len(re.findall(r"sae-resid\.gpt2-mini\.learned\.layer-\d\.seed-\d ", of_one_model)) == 6
    assert "stand for several" not in of_one_model


def test_configs_lists_describes_filters_and_prints_shipped_configs(command):
    code, out, _ = command("configs", "--json")
    rows = {row["name"]: row["about"] for row in json.loads(out)}
    assert code == 0
    assert rows["gpt2/learned"].startswith("GPT-2 with a trained embedding")
    assert "quickstart" in rows
    toys = [name for name in rows if name.startswith("toy/")]
    for words in ("toy", "toy/", "toy/*", "cli_configs/toy"):
        assert [row["name"] for row in json.loads(command("configs", words, "--json")[1])] == toys
    table = command("configs", "toy")[1]
    assert all(name in table for name in toys)
    assert "quickstart" not in table
    for words in ("gpt2/learned", "gpt2/learned.yaml", "cli_configs/gpt2/learned.yaml"):
        printed = command("configs", words)[1]
        assert printed == (ROOT / "cli_configs/gpt2/learned.yaml").read_text().replace("base.yaml", "gpt2/base")


@pytest.mark.parametrize(
    "args",
    [["lst"], ["info", "gpt3"], ["export", "nowhere.ckpt", "x"], ["study", "x"], ["configs", "nothing"], []],
)
def test_mistakes_of_the_light_commands_get_one_line(command, args):
    code, _, errors = command(*args) if args else (main([]), "", ["-"])
    assert code == 2
    assert len(errors) == 1


def test_with_ddp_gradients_are_views_of_the_buffers_that_are_sent(command, monkeypatch):
    made, real = [], cli.DDPStrategy
    monkeypatch.setattr(cli, "DDPStrategy", lambda **settings: made.append(real(**settings)) or made[-1])
    small = ["--model.sae.d_sae", "128", "--data.batch_size", "64", "--trainer.max_steps", "2"]
    ddp = ["--trainer.strategy", "ddp", "--trainer.devices", "1", "--trainer.accelerator", "cpu"]
    environment = dict(os.environ)
    try:
        code, _, errors = command("fit", "--config", "sae/topk_embedding", *small, *ddp)
    finally:  # or processes of later tests would take themselves for ranks of this run
        os.environ.clear()
        os.environ.update(environment)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert (code, errors) == (0, [])
    (strategy,) = made
    assert strategy._ddp_kwargs["gradient_as_bucket_view"]
    assert not strategy._ddp_kwargs.get("find_unused_parameters", False)
