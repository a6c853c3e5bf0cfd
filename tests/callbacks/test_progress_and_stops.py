"""What a user of a terminal sees of a run on the way, and when it is told to stop."""

import signal
from types import SimpleNamespace

import pytest
import torch

from zoo.callbacks import GracefulStop, RunProgress, RunStopped
from zoo.models import AdamWCosine, FrozenEmbeddingGPT2

TINY = {"vocab_size": 300, "context_length": 16, "d_model": 16, "n_layers": 1, "n_heads": 2}


class Watched(RunProgress):
    """Notes how long the bar is and what stands beside it, after every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        super().on_train_batch_end(trainer, pl_module, *args)
        (bar,) = [task for task in self.progress.tasks if task.id == self.train_progress_bar_id]
        self.seen.append((bar.total, self.get_metrics(trainer, pl_module)))


@pytest.fixture
def watched(tiny_data, make_trainer):
    def fit(**options):
        module = FrozenEmbeddingGPT2(**TINY, optimizer=AdamWCosine(learning_rate=0.01))
        trainer = make_trainer(callbacks=[bar := Watched()], enable_progress_bar=True, log_every_n_steps=2, **options)
        trainer.fit(module, tiny_data)
        return bar.seen, trainer

    return fit


def test_the_bar_ends_where_the_last_step_ends_the_run(watched, tiny_data):
    in_epoch = len(tiny_data.train_dataloader())
    seen, _ = watched(max_steps=3, accumulate_grad_batches=2)
    assert [length for length, _ in seen] == [6] * 6
    seen, _ = watched(max_epochs=1, max_steps=-1)
    assert {length for length, _ in seen} == {in_epoch}


def test_losses_stand_beside_the_bar_and_are_renewed_when_they_are_logged_and_validated(watched):
    seen, trainer = watched(max_steps=4, limit_val_batches=1, val_check_interval=4, num_sanity_val_steps=0)
    shown = [metrics for _, metrics in seen]
    assert all("v_num" not in metrics for metrics in shown)
    assert shown[0] == {}
    assert shown[1] == shown[2]
    assert list(shown[1]) == ["train/loss"]
    assert shown[3]["train/loss"] == f"{trainer.callback_metrics['train/loss'].item():.3f}" != shown[1]["train/loss"]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_signal_is_answered_once_by_rank_0_and_a_second_interrupt_ends_the_run(rank, capsys):
    before, callback = signal.getsignal(signal.SIGINT), GracefulStop()
    trainer = SimpleNamespace(global_step=0, global_rank=rank, default_root_dir="run")
    callback.on_train_start(trainer, None)
    try:
        signal.raise_signal(signal.SIGINT)
        lines = capsys.readouterr().out.split("\n")
        assert len([line for line in lines if "Ctrl-C" in line]) == (rank == 0)
        with pytest.raises(KeyboardInterrupt) as raised:
            signal.raise_signal(signal.SIGINT)
    finally:
        callback.on_train_end(trainer, None)
    callback.on_exception(trainer, None, raised.value)
    assert str(raised.value.checkpoint) == "run/checkpoints/last.ckpt"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_comes_in_a_step_saves_that_step_and_stops_before_the_next(tiny_data, make_trainer, tmp_path):
    class Told(GracefulStop):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 3:
                signal.raise_signal(signal.SIGTERM)
            super().on_train_batch_end(trainer, *args)

    module = FrozenEmbeddingGPT2(**TINY)
    trainer = make_trainer(callbacks=[Told()], max_steps=9)
    with pytest.raises(RunStopped, match=r"SIGTERM .*step 3"):
        trainer.fit(module, tiny_data)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
