import math
import pickle
import random
import shlex
import shutil
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo
from zoo import checkpoint_config
from zoo.callbacks import ExactResume, FiniteLoss, LastCheckpoint, LogSpacedCheckpoints, RunSummary, Throughput
from zoo.cli import ALWAYS
from zoo.models import AdamWCosine, FrozenEmbeddingGPT2

TINY = {"vocab_size": 300, "context_length": 16, "d_model": 16, "n_layers": 1, "n_heads": 2}


def module(**kwargs):
    L.seed_everything(0, verbose=False)
    return FrozenEmbeddingGPT2(**(TINY | kwargs))


class PoisonAt(L.Callback):
    """Puts a NaN or infinity into the weights before a given step."""

    def __init__(self, step, value):
        self.step, self.value = step, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            pl_module.net.transformer.ln_f.bias.data[0] = self.value


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_last_good_checkpoint(
    tiny_data, make_trainer, tmp_path, value, devices
):
    m = module()
    watch = [PoisonAt(5, value), FiniteLoss(), LastCheckpoint(every_n_steps=2)]
    trainer = make_trainer(
        max_steps=20, devices=devices, callbacks=watch, enable_checkpointing=True, log_every_n_steps=50
    )
    with pytest.raises(Exception, match=r"not finite .*step 6.*last good checkpoint is .*last\.ckpt"):
        trainer.fit(m, tiny_data)
    good = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert good["global_step"] == 4
    assert all(t.isfinite().all() for t in good["state_dict"].values())


def test_weights_that_are_not_finite_are_never_saved(tiny_data, make_trainer, tmp_path, refused):
    m = module()
    trainer = make_trainer(callbacks=[FiniteLoss()])
    trainer.fit(m, tiny_data)
    m.net.transformer.ln_f.weight.data[0] = math.nan
    with refused("net.transformer.ln_f.weight is not finite"):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


def test_a_test_whose_loss_is_not_finite_ends_in_an_error(tiny_data, make_trainer, refused):
    m = module()
    m.net.transformer.ln_f.weight.data[0] = math.nan
    with refused("test/loss is nan"):
        make_trainer(callbacks=[FiniteLoss()]).test(m, tiny_data, verbose=False)


@pytest.mark.parametrize(("fvu", "fails"), [(math.nan, True), (math.inf, False), (0.5, False)])
@pytest.mark.parametrize("hook", ["on_validation_end", "on_test_end"])
def test_a_fraction_of_variance_unexplained_may_be_infinite_and_not_nan(hook, fvu, fails, make_trainer, refused):
    trainer = make_trainer()
    trainer.fit_loop.epoch_loop.val_loop._results.clear()
    trainer._logger_connector._callback_metrics = {"val/fvu": torch.tensor(fvu)}
    if not fails:
        getattr(FiniteLoss(), hook)(trainer, None)
        return
    with refused("val/fvu is nan"):
        getattr(FiniteLoss(), hook)(trainer, None)


class Draws(L.Callback):
    """Notes a number from each of the three generators in every step."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_end(self, *args):
        self.drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))


def test_a_resumed_run_draws_what_an_undisturbed_one_draws_from_every_generator(tiny_data, make_trainer, tmp_path):
    def fit(steps, seed, ckpt=None):
        m, draws = module(), Draws()
        L.seed_everything(seed, verbose=False)
        callbacks = [ExactResume(), draws, LastCheckpoint(100)]
        make_trainer(max_steps=steps, callbacks=callbacks, enable_checkpointing=True).fit(m, tiny_data, ckpt_path=ckpt)
        return draws.drawn

    whole = fit(5, 0)
    assert fit(2, 0) == whole[:2]
    assert fit(5, 99, tmp_path / "run" / "checkpoints" / "last.ckpt") == whole[2:]


@pytest.mark.parametrize("devices", [1, 2])
def test_dropout_resumes_exactly(tiny_data, make_trainer, tmp_path, devices):
    def fit(steps, ckpt=None):
        m = module(dropout=0.3, optimizer=AdamWCosine(decay_steps=9))
        trainer = make_trainer(
            max_steps=steps, devices=devices, callbacks=[ExactResume(), LastCheckpoint(100)], enable_checkpointing=True
        )
        if ckpt:
            torch.manual_seed(99)
        trainer.fit(m, tiny_data, ckpt_path=ckpt)
        return m.net.state_dict()

    whole = fit(9)
    fit(4)
    resumed = fit(9, tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("ends_by", ["max_steps", "max_epochs"])
def test_a_run_over_several_epochs_resumes_exactly_from_any_step(tiny_data, make_trainer, tmp_path, ends_by):
    tiny_data.batch_size = 40
    per_epoch = len(tiny_data.train_dataloader())
    assert 3 < per_epoch < 20
    total = 2 * per_epoch + 3 if ends_by == "max_steps" else 3 * per_epoch
    whole_run = {"max_epochs": 3, "max_steps": -1} if ends_by == "max_epochs" else {"max_steps": total}

    def fit(steps, ckpt=None):
        m = module(optimizer=AdamWCosine(decay_steps=total), dropout=0.1)
        callbacks = [ExactResume(), LastCheckpoint(10**6)]
        length = whole_run if steps == total else {"max_steps": steps}
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, limit_val_batches=1, **length)
        trainer.fit(m, tiny_data, ckpt_path=ckpt)
        return m.net.state_dict()

    whole = fit(total)
    for stop in (per_epoch - 1, per_epoch, per_epoch + 1):
        fit(stop)
        resumed = fit(total, tmp_path / "run" / "checkpoints" / "last.ckpt")
        assert all(torch.equal(resumed[name], whole[name]) for name in whole), stop


def test_the_last_checkpoint_knows_the_validation_that_followed_it(tiny_data, make_trainer, tmp_path):
    trainer = make_trainer(
        callbacks=[ExactResume(), LastCheckpoint(2)],
        enable_checkpointing=True,
        limit_val_batches=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    trainer.fit(module(), tiny_data)
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["zoo"]["provenance"]["metrics"]["val/loss"] == trainer.callback_metrics["val/loss"].item()
    assert checkpoint["owed_validation"] is False


def test_log_spaced_checkpoints_are_written_and_load_at_their_step(tiny_data, make_trainer, tmp_path, refused):
    m = module(frozen_rows="none")
    start = m.net.W_E.detach().clone()
    make_trainer(max_steps=11, callbacks=[LogSpacedCheckpoints()]).fit(m, tiny_data)
    run = tmp_path / "run"
    assert sorted(p.name for p in (run / "steps").iterdir()) == [f"step-{s:06d}" for s in (0, 1, 2, 4, 8, 11)]
    assert torch.equal(zoo.embedding(run, step=0), start)
    assert torch.equal(zoo.embedding(run), m.net.W_E)
    assert torch.equal(zoo.load(run, step=11).W_E, m.net.W_E)
    assert not torch.equal(zoo.embedding(run, step=4), zoo.embedding(run, step=8))
    with refused("no step 3; it has 0, 1, 2, 4, 8, 11"):
        zoo.load(run, step=3)


def test_rank_0_alone_writes_log_spaced_checkpoints(tmp_path):
    class Silent:
        def zoo_part(self):
            raise AssertionError("another rank writes")

    other = SimpleNamespace(is_global_zero=False, global_step=0, default_root_dir=str(tmp_path))
    callback = LogSpacedCheckpoints()
    callback.on_train_start(other, Silent())
    callback.on_train_end(other, Silent())
    assert not list(tmp_path.iterdir())


def test_a_log_spaced_checkpoint_of_a_step_that_is_validated_holds_what_was_measured(tiny_data, make_trainer, tmp_path):
    trainer = make_trainer(
        max_steps=8,
        callbacks=[LogSpacedCheckpoints()],
        limit_val_batches=1.0,
        val_check_interval=4,
        check_val_every_n_epoch=None,
    )
    trainer.fit(module(), tiny_data)
    four, eight = (
        checkpoint_config.read(tmp_path / "run" / "steps" / f"step-{step:06d}")["provenance"]["metrics"]["val/loss"]
        for step in (4, 8)
    )
    assert eight == trainer.callback_metrics["val/loss"].item() != four


def test_a_run_that_went_on_after_its_newest_step_is_read_where_it_ended(tiny_data, make_trainer, tmp_path):
    m = module(frozen_rows="none")
    callbacks = [LogSpacedCheckpoints(), LastCheckpoint(1)]
    make_trainer(max_steps=7, callbacks=callbacks, enable_checkpointing=True).fit(m, tiny_data)
    shutil.rmtree(tmp_path / "run" / "steps" / "step-000007")  # as if it had been stopped
    assert torch.equal(zoo.embedding(tmp_path / "run"), m.net.W_E)
    assert torch.equal(zoo.load(tmp_path / "run").W_E, m.net.W_E)
    assert not torch.equal(zoo.embedding(tmp_path / "run", step=4), m.net.W_E)


def test_a_prolonged_run_keeps_what_was_measured_until_it_is_measured_again(tiny_data, make_trainer, tmp_path):
    def fit(steps, ckpt=None):
        options = {"limit_val_batches": 1.0, "val_check_interval": 4, "check_val_every_n_epoch": None}
        callbacks = [LastCheckpoint(100)]
        make_trainer(max_steps=steps, callbacks=callbacks, enable_checkpointing=True, **options).fit(
            module(), tiny_data, ckpt_path=ckpt
        )
        return torch.load(last)["zoo"]["provenance"]["metrics"]["val/loss"]

    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    four = fit(4)
    assert fit(6, last) == four
    assert fit(8, last) != four


def test_the_callbacks_of_every_run_go_to_processes_that_are_spawned():
    assert {type(pickle.loads(pickle.dumps(kind()))) for kind in ALWAYS} == set(ALWAYS)


def test_pieces_of_a_schedule_follow_one_another():
    schedule = LogSpacedCheckpoints([[5, 20], [10, 50]])
    assert [s for s in range(80) if schedule.due(s)] == [0, 1, 5, 10, 15, 20, 30, 40, 50]


@pytest.mark.parametrize("devices", [1, 2])
def test_tokens_seen_count_all_ranks_and_go_on_after_a_resume(tiny_data, make_trainer, tmp_path, devices):
    def fit(steps, ckpt=None):
        callbacks = [Throughput(), LastCheckpoint(100)]
        make_trainer(
            max_steps=steps,
            devices=devices,
            callbacks=callbacks,
            enable_checkpointing=True,
            logger=True,
            log_every_n_steps=2,
            accumulate_grad_batches=3,
        ).fit(module(), tiny_data, ckpt_path=ckpt)

    fit(4)
    fit(6, tmp_path / "run" / "checkpoints" / "last.ckpt")
    newest = max((tmp_path / "run").rglob("events.*"), key=lambda p: p.parent.name)
    seen = EventAccumulator(str(newest)).Reload().Scalars("tokens_seen")
    assert [(e.step, e.value) for e in seen] == [(5, 6 * 3 * 4 * 16)]


def test_tokens_per_second_leave_out_validation_and_the_start(monkeypatch):
    # Eight tokens a step: two steps of 2 s and 3 s, with a validation of 100 s between them, which begins 1 s after
    # the first, and one of 50 s before.
    now, logged = [0.0], []
    monkeypatch.setattr("zoo.callbacks.throughput.time", SimpleNamespace(perf_counter=lambda: now[0]))
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((step, values)))
    trainer = SimpleNamespace(global_step=0, world_size=2, log_every_n_steps=1, loggers=[logger], sanity_checking=True)
    pl_module, callback = SimpleNamespace(tokens_per_batch=lambda batch: 4, batches="tokens"), Throughput()

    def step(seconds):
        now[0] += seconds
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, pl_module, None, None, 0)

    def validate(seconds):
        callback.on_validation_start(trainer, pl_module)
        now[0] += seconds
        callback.on_validation_end(trainer, pl_module)

    validate(50)
    now[0] += 7
    trainer.sanity_checking = False
    callback.on_train_start(trainer, pl_module)
    step(2)
    now[0] += 1
    validate(100)
    step(3)
    callback.on_train_end(trainer, pl_module)
    now[0] += 1000
    assert callback.seconds == 6
    assert callback.summary() == {"tokens seen": "16", "tokens per second": "3"}
    assert logged == [
        (0, {"tokens_seen": 8, "tokens_per_second": 4}),
        (1, {"tokens_seen": 16, "tokens_per_second": 2}),
    ]


class Saying(L.Callback):
    def summary(self):
        return {"my own line": "said [by] a callback"}


def printed(capsys):
    """The table at the end of a run: its title, and its lines by their labels."""
    lines = [line.strip(" ┃│┏┓└┘┡┩├┤") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
    return lines, dict(cells)


@pytest.fixture
def summed_up(tiny_data, make_trainer, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")

    def fit(**options):
        folder = tmp_path / "my run"
        defaults = {"logger": True, "enable_checkpointing": True, "limit_val_batches": 1.0, "val_check_interval": 4}
        options = {
            "default_root_dir": str(folder),
            "callbacks": [LastCheckpoint(100), Saying(), RunSummary()],
        } | options
        trainer = make_trainer(**defaults | options)
        trainer.fit(module(), tiny_data)
        return trainer, folder, *printed(capsys)

    return fit


def test_the_table_at_the_end_says_what_was_measured_where_it_lies_and_what_to_try_next(summed_up):
    trainer, folder, lines, said = summed_up()
    last = folder / "checkpoints" / "last.ckpt"
    assert "my run" in lines
    assert said["steps"] == "4"
    for name in ("loss", "perplexity", "bits_per_byte"):
        value = trainer.callback_metrics[f"val/{name}"].item()
        assert said[f"validation {name.replace('_', ' ')}"] == f"{value:.4f}"
    assert said["my own line"] == "said [by] a callback"
    assert said["checkpoint"] == str(last)
    assert shlex.split(said["curves"]) == ["tensorboard", "--logdir", str(folder)]
    command = ["python", "-m", "zoo", "predict", "--ckpt_path", str(last), "--data.prompts", '["class "]']
    assert shlex.split(said["try next"]) == command


def test_the_table_at_the_end_has_no_line_of_what_a_run_has_not(summed_up):
    _, _, _, said = summed_up(logger=False, enable_checkpointing=False, callbacks=[RunSummary()], limit_val_batches=0)
    assert said == {"steps": "4"}
