"""Studies of many steps of pretraining, which a repository on the hub keeps as revisions."""

import json
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from doing_studies import answer, do_tasks
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from zoo import null_models, source_files, tensor_files, token_texts
from zoo.analysis import dictionaries
from zoo.null_models import planted
from zoo.shared_tasks import pursuit
from zoo.shared_tasks.dictionary_curves import Lines, on_a_logarithmic_axis
from zoo.shared_tasks.rows import Rows, _opened, datamodule
from zoo.source import Source
from zoo.studies.basis_pursuit import BasisPursuit
from zoo.study import Work, all_tasks

STEPS = (0, 1, 4, 16, 64, 256, 1024, 4096)
SMALL = {"n_atoms": 24, "penalties": (0.3,), "dictionary_steps": 8, "seeds": 3, "at_l0": 2, "gauged": 0}
SMALL |= {"null_models": "covariance-matched"}


def white(n_rows, d_in, seed):
    return torch.randn(n_rows, d_in, generator=torch.Generator().manual_seed(seed)) / d_in**0.5


def superposition(n_rows, d_in, n_atoms, sparsity):
    rows, _, _ = planted(n_rows, d_in, n_atoms, sparsity, generator=torch.Generator().manual_seed(3))
    rows -= rows.mean(0)
    return rows / rows.norm(dim=1).square().mean().sqrt()


def mixed(share, rows, noise):
    """Rows of variance 1, of which a share of the variance is noise."""
    return (1 - share) ** 0.5 * rows + share**0.5 * noise


def noise_left(step, end):
    """Share of noise that is left at a step; it goes from 1 to `end`."""
    return end + (1 - end) * (1 + 2 * step) ** -0.5


def write_tokenizer(folder, n_tokens):
    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(n_tokens)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def repository(hub, tmp_path, monkeypatch):
    """Write a model at every step into the local cache, as a GPT-NeoX in safetensors or as a GPT-2 in a pickle."""
    monkeypatch.setattr(dictionaries, "BASELINE_L0", (1, 2))
    _opened.cache_clear()  # the repositories of other tests

    def write(rows_at, revision="step{}", repo="org/model", steps=STEPS):
        for step in steps:
            folder = tmp_path / f"{repo.replace('/', '-')}-{step}"
            folder.mkdir()
            W = rows_at(step)
            if revision.startswith("step"):
                tensors = {"gpt_neox.embed_in.weight": W, "embed_out.weight": torch.randn(W.shape)}
                save_file(tensors, folder / "model.safetensors")
                absent, kind = [], "gpt_neox"
            else:
                torch.save({"wte.weight": W, "wpe.weight": torch.randn(W.shape)}, folder / "pytorch_model.bin")
                absent, kind = ["model.safetensors", "model.safetensors.index.json"], "gpt2"
            (folder / "config.json").write_text(json.dumps({"model_type": kind}))
            (folder / "optimizer.pt").write_bytes(b"not to be read")
            write_tokenizer(folder, len(W))
            hub(repo, folder, revision=revision.format(step), absent=absent)
        return f"hf:{repo}"

    return write


@pytest.fixture
def read(monkeypatch):
    """Counts of what is read: files of the hub by name, tensors of safetensors by name, and decoded tokenizers."""
    counts = Counter()

    def counted(owner, name, of):
        original = getattr(owner, name)

        def function(*args, **kwargs):
            found = original(*args, **kwargs)
            if found is not None:
                counts[of(*args)] += 1
            return found

        monkeypatch.setattr(owner, name, function)

    counted(source_files, "hub_file", lambda repo, revision, name: name)
    counted(token_texts, "decoded_tokens", lambda *_: "decoded tokenizers")
    original = tensor_files.open_tensors

    @contextmanager
    def opened(path):
        with original(path) as file:

            class Recording:
                keys, get_slice, metadata = file.keys, file.get_slice, file.metadata

                @staticmethod
                def get_tensor(name):
                    counts[name] += 1
                    return file.get_tensor(name)

            yield Recording

    monkeypatch.setattr(tensor_files, "open_tensors", opened)
    return counts


def test_the_error_of_rows_that_become_superpositions_falls_to_its_limit(repository, tmp_path):
    learned, noise, steps = superposition(600, 16, 24, 2), white(600, 16, 1), STEPS[:6]
    source = repository(lambda step: mixed(noise_left(step, 0.0), learned, noise), steps=steps)
    report = answer(BasisPursuit((f"{source}@step{{step}}",), steps, **SMALL), tmp_path)
    verdict, pretraining = report.verdict, report.sections[1]
    assert [row[0] for row in pretraining.tables[0].rows] == list(steps)
    assert verdict.headline.startswith("The error of sparse coding falls over pretraining.\n\nIt is 0.")
    assert verdict.numbers["trend"]["change"].high < -0.1
    assert verdict.numbers["difference"].high < -0.1
    assert verdict.numbers["limit"].low < 0.02
    assert verdict.numbers["limit"].mean < 0.05
    assert f"has the limit {verdict.numbers['limit']}" in pretraining.finding
    assert not any("no positive control" in str(table) for table in report.sections[0].tables)  # it was left out
    drawn = {series.name: series for series in verdict.chart.series}
    assert drawn["embedding"].x == [0.2, *steps[1:]]
    assert drawn["limit of the power law"].high == [verdict.numbers["limit"].high] * 2
    law = np.interp(steps[2:], drawn["power law"].x, drawn["power law"].y)
    assert law == pytest.approx(drawn["embedding"].y[2:], abs=0.03)


def test_the_error_of_rows_that_stay_gaussian_does_not_fall(repository, tmp_path):
    noise, other, steps = white(600, 16, 1), white(600, 16, 2), (0, 4, 256)
    source = repository(lambda step: mixed(noise_left(step, 0.0), other, noise), "checkpoint-{}", steps=steps)
    report = answer(BasisPursuit((source,), steps, **SMALL), tmp_path)
    assert report.verdict.headline.startswith("The error of sparse coding neither clearly falls nor clearly rises")
    assert 0 in report.verdict.numbers["trend"]["change"]
    assert report.verdict.numbers["limit"] is None
    assert "No limit is fitted, because it is not clear whether the error falls" in report.sections[1].finding
    drawn = [series.name for series in report.verdict.chart.series]
    assert drawn == ["embedding", "covariance-matched", "highest error that counts as explained"]


def test_at_every_step_only_the_embedding_is_read_and_only_once_to_plan_the_study(repository, read, tmp_path):
    source = repository(lambda step: white(600, 16, step))
    study = BasisPursuit((f"{source}@step{{step}}",), STEPS, **SMALL)
    tasks = all_tasks(study)
    assert all(task.key and task.seconds() for task in tasks)
    n, embedding = len(STEPS), "gpt_neox.embed_in.weight"
    needed = {"config.json": n, "model.safetensors": n, "tokenizer.json": n, embedding: n, "decoded tokenizers": 1}
    assert read == needed
    rows = [task for task in tasks if isinstance(task, Rows)]
    assert len(rows) == n
    for task in rows:
        task.do(Work({}, tmp_path))
    assert read == needed | {embedding: 2 * n}


def test_the_embedding_in_a_pickle_is_found_beside_files_that_are_not_opened(repository, read):
    source = Source.open(repository(lambda step: white(50, 16, step), "checkpoint-{}", steps=(0, 400)))
    for step in (0, 400):
        assert source.shape(step) == (50, 16)
        assert torch.equal(source.embedding(step), white(50, 16, step))
    assert set(read) == {"config.json", "pytorch_model.bin", "tokenizer.json", "decoded tokenizers"}


def test_null_models_of_all_steps_are_made_of_the_same_normal_numbers():
    """At one seed, the coordinates along principal axes, in units of their deviation, differ only in sign."""
    matrices = [white(300, 8, 0), superposition(300, 8, 12, 2), white(300, 8, 1) * torch.arange(1, 9)]
    drawn = {}
    for i, W in enumerate(matrices):
        for seed in (0, 1):
            rows = {"W_E": W.numpy(), "tokens": None}
            data = datamodule(rows, "covariance-matched", 12, seed, batch_size=None, seed=seed)
            mean, roots, axes = null_models.principal_axes(W)
            drawn[i, seed] = ((data.W_E.double() - mean) @ axes / roots).abs(), data.held_out
    for i in (1, 2):
        for seed in (0, 1):
            (numbers, held_out), (first, first_held_out) = drawn[i, seed], drawn[0, seed]
            assert torch.allclose(numbers, first, atol=1e-3)
            assert torch.equal(held_out, first_held_out)
    assert not torch.allclose(drawn[0, 0][0], drawn[0, 1][0], atol=1e-1)


def test_with_fewer_rows_these_are_the_same_at_every_step_and_the_report_says_so(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(pursuit, "FEWER_ROWS", 300)
    matrices = {step: white(600, 16, step) for step in (0, 8)}
    source = repository(matrices.get, steps=(0, 8))
    study = BasisPursuit((f"{source}@step{{step}}",), (0, 8), **SMALL | {"seeds": 2, "dictionary_steps": 2})
    done = do_tasks(study, tmp_path)
    read = {task.step: done[task]["W_E"] for task in all_tasks(study) if isinstance(task, Rows) and task.some}
    chosen = {
        step: [int((matrices[step].numpy() == row).all(1).nonzero()[0][0]) for row in rows]
        for step, rows in read.items()
    }
    assert chosen[0] == chosen[8]
    assert len(set(chosen[0])) == 300
    report = study.report(done)
    assert report.verdict.numbers["trend"]["rows"] == 300
    pretraining = report.sections[1]
    assert pretraining.finding.endswith("for the same 300 random rows at every step, and not for all rows.")
    by_step = pretraining.tables[0]
    assert by_step.columns[1:3] == ["embedding, fewer rows", "covariance-matched, fewer rows"]
    assert "These are 300 random rows" in by_step.note
    drift = next(chart for chart in pretraining.charts if chart.name == "pretraining-drift")
    moved = np.linalg.norm(read[8] - read[0], axis=1)
    unit = np.sqrt(((read[8] - read[8].mean(0)) ** 2).sum(1).mean())
    assert drift.series[0].y == pytest.approx([0, np.median(moved) / unit], rel=1e-5)


def test_a_step_with_another_number_of_rows_is_refused(repository, refused):
    source = repository(lambda step: white(60 + step, 16, 0), steps=(0, 4))
    with refused("has 60 rows at step 0, but 64 at step 4"):
        BasisPursuit((source,), (0, 4), **SMALL).tasks()


@pytest.mark.parametrize(
    ("steps", "zero"), [((0, 1, 2, 4, 8), 0.5), ((0, 400, 1000), 200), ((0, 1, 1000, 1_000_000), 0.001), ((0, 8), 4)]
)
def test_step_0_has_its_own_place_on_a_logarithmic_axis(steps, zero):
    x, label = on_a_logarithmic_axis(steps)
    assert x == [zero, *steps[1:]]
    assert label == f"step of pretraining (step 0 is drawn at {zero:g})"
    assert on_a_logarithmic_axis(steps[1:]) == ([float(s) for s in steps[1:]], "step of pretraining")


def lines_of(errors):
    """Lines of a study with the errors (steps, seeds) of the embedding, and 0.4 for the null model."""
    rng, lines = np.random.default_rng(0), []
    for step, own in zip(STEPS, errors, strict=True):
        for seed, error in enumerate(own):
            for matrix, fvu in (("embedding", error), ("covariance-matched", 0.4 + rng.normal(0, 1e-3))):
                line = {"source": "a", "step": step, "matrix": matrix, "seed": seed, "coder": "basis pursuit"}
                lines.append(line | {"fvu_pursued": fvu})
    return Lines(lines, BasisPursuit(("a",), STEPS, seeds=3), STEPS)


def noisy(curve, sd=1e-3):
    return np.asarray(curve)[:, None] + np.random.default_rng(1).normal(0, sd, (len(curve), 3))


@pytest.mark.parametrize(
    ("curve", "verb", "end", "falls"),
    [
        ([0.4 * noise_left(step, 0.25) for step in STEPS], "falls over pretraining.", "has the limit 0.", "yes"),
        (
            [0.3] * 8,
            "neither clearly falls nor clearly rises over pretraining.",
            "No limit is fitted, because it is",
            "undecided",
        ),
        (
            [0.1 + 0.04 * i for i in range(8)],
            "rises over pretraining.",
            "the error rises from step 0 on",
            "no, it rises",
        ),
        (
            [0.4, 0.3, 0.25, 0.2, 0.1, 0.15, 0.2, 0.25],
            "falls until step 64 of pretraining and then rises.",
            "No limit is fitted, because the error rises from step 64 on",
            "no, from step 64 on it rises",
        ),
        (
            [0.2, 0.25, 0.3, 0.35, 0.4, 0.3, 0.2, 0.1],
            "rises until step 64 of pretraining and then falls.",
            "the error falls along 4 steps above 0 in the end",
            "yes",
        ),
    ],
)
def test_the_trend_and_its_limit_in_words(curve, verb, end, falls):
    found = lines_of(noisy(curve))
    assert found.trend().answer == f"The error of sparse coding {verb}"
    assert ("at step 64" in found.trend().details) == ("64" in verb)
    assert found.trend().numbers["falls"] == falls
    assert end in found.told_of_limit()


LARGE = SMALL | {"n_atoms": 256, "penalties": (0.3, 0.14), "dictionary_steps": 10, "at_l0": 8}


@pytest.mark.slow
def test_a_sweep_of_8_steps_of_5000_rows_finds_the_known_limit_of_the_error(repository, tmp_path):
    """Noise that is left at the end gives the error a limit above 0, which is measured on the rows of the limit."""
    learned, noise = superposition(5000, 64, 128, 4), white(5000, 64, 1)
    source = repository(lambda step: mixed(noise_left(step, 0.1), learned, noise))
    numbers = answer(BasisPursuit((f"{source}@step{{step}}",), STEPS, **LARGE), tmp_path / "sweep").verdict.numbers
    np.save(tmp_path / "limit.npy", mixed(0.1, learned, noise).numpy())
    known = answer(BasisPursuit((str(tmp_path / "limit.npy"),), **LARGE), tmp_path / "limit").verdict.numbers
    assert numbers["trend"]["change"].high < -0.2
    assert numbers["limit"].low <= known["error"].mean <= numbers["limit"].high
    assert numbers["limit"].high - numbers["limit"].low < 0.05


@pytest.mark.slow
def test_in_a_sweep_of_8_steps_of_5000_gaussian_rows_the_error_does_not_fall(repository, tmp_path):
    noise, other = white(5000, 64, 1), white(5000, 64, 2)
    source = repository(lambda step: mixed(noise_left(step, 0.1), other, noise), "checkpoint-{}")
    verdict = answer(BasisPursuit((source,), STEPS, **LARGE), tmp_path).verdict
    assert verdict.headline.startswith("The error of sparse coding neither clearly falls nor clearly rises")
    assert 0 in verdict.numbers["trend"]["change"]
    assert 0 in verdict.numbers["difference"]
    assert verdict.numbers["limit"] is None
