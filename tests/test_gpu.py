"""What only a GPU can show: `pytest -m gpu`, in one process that downloads nothing."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from killed_runs import KillAt, differing, left_by
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from processes import ROOT, last
from small_corpus import make_corpus
from test_configs import CONFIGS, FEW_STEPS, local_stand_ins
from test_killed_runs import FAMILIES

import zoo
from zoo.callbacks import EmbeddingDrift, LastCheckpoint, RunProgress, tables_and_pictures
from zoo.cli import ALWAYS, run
from zoo.models import GPT2, FrozenEmbeddingGPT2, TopKSAE
from zoo.models.sae import dispatch, support
from zoo.models.sparse_coding import (
    basis_pursuit,
    lasso,
    least_squares_on_support,
    orthogonal_matching_pursuit,
)

DEVICE = "cuda"
THERE = DEVICE == "cpu" or torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not THERE, reason="there is no GPU")]
STEPS = 40


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "cli_configs")))
def test_every_config_trains(config, tmp_path, tiny_corpus, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["zoo"])
    own_precision = FEW_STEPS[: FEW_STEPS.index("--trainer.accelerator")] + FEW_STEPS[-4:]
    args = ["--config", str(config), "--run_dir", str(tmp_path / "run"), *own_precision]
    args += ["--trainer.accelerator", DEVICE, *local_stand_ins(config, tmp_path, tiny_corpus)]
    if config.parent.name not in ("sae", "basis_pursuit", "toy"):
        args += ["--data.corpus", "LocalFiles", "--data.corpus.paths", f"[{tiny_corpus}]"]
        args += ["--data.tokenizer", "TrainedBPE", "--data.tokenizer.vocab_size", "300"]
        args += ["--data.val_fraction", "0.2", "--data.test_fraction", "0.2"]
        np.save(tmp_path / "W_E.npy", np.random.default_rng(0).normal(size=(300, 16)))
    before = torch.cuda.memory_stats().get("allocation.all.allocated", 0) if DEVICE == "cuda" else 0
    assert run(["fit", *args]) == 0
    assert "validation" in capsys.readouterr().out
    state = zoo.load(tmp_path / "run" / "checkpoints" / "last.ckpt").state_dict()
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    if DEVICE == "cuda":
        assert torch.cuda.memory_stats()["allocation.all.allocated"] > before


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("tied", [False, True])
def test_frozen_rows_stay_as_they_are_bit_for_bit(precision, tied, tiny_data, make_trainer):
    L.seed_everything(0, verbose=False)
    module = FrozenEmbeddingGPT2(300, 16, 16, 1, 2, frozen_rows="0-255", tied=tied)
    start = module.net.W_E.detach().clone()
    options = {"accelerator": DEVICE, "precision": precision, "max_steps": 10, "gradient_clip_val": 1.0}
    make_trainer(callbacks=[EmbeddingDrift(5)], **options).fit(module, tiny_data)
    moved = (module.net.W_E.detach().cpu() != start).any(1)
    assert not moved[:256].any()
    assert moved[256:].any()


@pytest.mark.parametrize("V", [129, 192])
def test_a_compiled_network_has_the_loss_and_the_gradients_of_the_formula(V):
    torch.manual_seed(0)
    net = GPT2(V, 32, 64, 1, 2).to(DEVICE)
    exact = copy.deepcopy(net).double()
    input_ids, targets = torch.randint(V, (2, 4, 32), device=DEVICE)
    targets[0, :4] = -100
    wanted = torch.nn.functional.cross_entropy(exact(input_ids).flatten(0, 1), targets.flatten(), reduction="sum")
    wanted.backward()
    for compiled in (False, True):
        if compiled:
            net.compile(fullgraph=True)
        net.zero_grad()
        nats = net(input_ids, targets)
        nats.backward()
        assert nats.item() == pytest.approx(wanted.item(), rel=1e-5)
        for ours, theirs in zip(net.parameters(), exact.parameters(), strict=True):
            assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm().clamp(min=1e-3)


def train(folder, name, family, kill=None, node=None):
    """Train a family in this process, from `last.ckpt` if there is one."""
    folder = Path(folder)
    tables_and_pictures.render = lambda figure: np.zeros((1, 1, 4), np.uint8)  # most of the time
    L.seed_everything(0, verbose=False)
    model, data, callbacks = FAMILIES[family](folder)
    checkpoint = last(folder / name)
    callbacks += [LastCheckpoint(10), *(c() for c in ALWAYS if c not in (LastCheckpoint, RunProgress))]
    trainer = L.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        limit_val_batches=3,
        accelerator=DEVICE,
        devices=1,
        num_nodes=1 if node is None else 2,
        strategy="auto" if node is None else DDPStrategy(process_group_backend="gloo"),
        callbacks=callbacks + ([KillAt("on_train_batch_end", int(kill))] if kill else []),
        val_check_interval=20,
        check_val_every_n_epoch=None,
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder / name),
        logger=TensorBoardLogger(folder / name, name="", version="", purge_step=None),
    )
    trainer.fit(model, data, ckpt_path=str(checkpoint) if checkpoint.exists() else None)
    if node is not None:
        torch.save(model.net.state_dict(), folder / f"{name}-{node}.pt")


def started(folder, *args, **environment):
    """Begin `train` in a process of its own."""
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "400", **environment}
    with (folder / f"{args[0]}.txt").open("a") as log:
        command = [sys.executable, "-W", "ignore", __file__, str(folder), *map(str, args)]
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    make_corpus(tmp_path)
    families = ("gpt2", "autoencoder")
    whole = {family: started(tmp_path, family, family) for family in families}
    killed = {family: started(tmp_path, f"{family}-killed", family, 33) for family in families}
    assert {family: p.wait(100) for family, p in killed.items()} == dict.fromkeys(families, -9)
    again = {family: started(tmp_path, f"{family}-killed", family) for family in families}
    for family in families:
        for process, name in ((whole, family), (again, f"{family}-killed")):
            assert process[family].wait(100) == 0, (tmp_path / f"{name}.txt").read_text()[-3000:]
    found = [
        line
        for family in families
        for line in differing(left_by(tmp_path / family), left_by(tmp_path / f"{family}-killed"), family)
    ]
    assert not found, "\n".join(found)


def test_two_processes_share_the_device(tmp_path):
    make_corpus(tmp_path)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29500 + os.getpid() % 1000), "LOCAL_RANK": "0"}
    alone = started(tmp_path, "one", "gpt2")
    pair = [started(tmp_path, "two", "gpt2", "", n, **address, NODE_RANK=str(n)) for n in (0, 1)]
    try:
        codes = [p.wait(100) for p in (alone, *pair)]
    finally:
        for p in (alone, *pair):
            p.kill()
    log = (tmp_path / "two.txt").read_text()
    if any(codes[1:]) and "gloo" in log.lower().splitlines()[-1]:
        pytest.skip(f"gloo does not share this device: {log.splitlines()[-1]}")
    assert codes == [0, 0, 0], log[-3000:]
    first, second = (torch.load(tmp_path / f"two-{n}.pt", map_location="cpu") for n in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem():
    """Rows (60, 24) and 80 unit atoms."""
    return random(60, 24), torch.nn.functional.normalize(random(80, 24, seed=1), dim=1)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(
    "solve", [lambda X, D, p: lasso(X, D, 0.1, 1e-5, p), lambda X, D, p: basis_pursuit(X, D, 1e-4, p)]
)
def test_convex_problems_have_the_solutions_of_the_cpu(solve, positive):
    X, D = problem()
    if positive:
        X = random(60, 80, seed=2).abs() @ D  # which has a code that is
    here, there = solve(X, D, positive), solve(X.to(DEVICE), D.to(DEVICE), positive)
    assert there.certified.all()
    assert here.certified.all()
    torch.testing.assert_close(there.objective.cpu(), here.objective, rtol=1e-3, atol=1e-6)


def test_pursuit_and_least_squares_have_the_codes_of_the_cpu():
    X, D = problem()
    codes = orthogonal_matching_pursuit(X, D, 4)
    there = orthogonal_matching_pursuit(X.to(DEVICE), D.to(DEVICE), 4)
    torch.testing.assert_close(there.cpu().to_dense(), codes.to_dense(), rtol=1e-3, atol=1e-4)
    refit = least_squares_on_support(X, D, codes)
    there = least_squares_on_support(X.to(DEVICE), D.to(DEVICE), codes.to(DEVICE))
    torch.testing.assert_close(there.cpu().to_dense(), refit.to_dense(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_by_kernels_is_that_of_torchs_own_operators(precision, monkeypatch):
    x, dead, found = random(512, 96).to(DEVICE), torch.arange(100, 200, device=DEVICE), []
    monkeypatch.setattr(support, "DENSE_ABOVE", {DEVICE: 1.0})  # sparse products, whatever is on
    for by_kernels in (DEVICE == "cuda", False):
        monkeypatch.setattr(dispatch, "by_kernels", lambda device, answer=by_kernels: answer)
        torch.manual_seed(0)
        net = TopKSAE(96, 800, 16, aux_k=32).to(DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = net.loss(x, dead)
        loss.total.backward()
        found.append((loss.total.detach(), *(p.grad for p in net.parameters())))
    assert not dispatch.FAILED  # or torch's operators would have been compared with themselves
    tolerance = 1e-4 if precision == torch.float32 else 0.02
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


if __name__ == "__main__":
    folder, name, family, *rest = sys.argv[1:]
    train(folder, name, family, *rest)
