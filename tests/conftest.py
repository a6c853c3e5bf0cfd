import hashlib
import shutil
from contextlib import contextmanager

import lightning as L
import pytest
import torch
from huggingface_hub import constants
from small_corpus import make_corpus

from zoo import ZooError
from zoo.datamodules import LocalFiles, TextDataModule, TrainedBPE

torch.set_num_threads(1)  # OpenMP's threads do not survive the fork of strategy ddp_fork


@pytest.fixture
def tiny_corpus(tmp_path):
    """A folder of 60 different text documents, about 20 kB together."""
    return make_corpus(tmp_path)


@pytest.fixture
def tiny_data(tiny_corpus, tmp_path):
    """A prepared data module over `tiny_corpus`: V = 300, T = 16, 4 windows a batch."""
    data = TextDataModule(
        LocalFiles([str(tiny_corpus)]),
        TrainedBPE(300),
        context_length=16,
        batch_size=4,
        val_fraction=0.15,
        test_fraction=0.15,
        prompts=["the cat "],
        cache_dir=str(tmp_path / "cache"),
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="session")
def stdlib_cache(tmp_path_factory):
    """One cache of the standard library's tokens for the tests of a file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def refused():
    """A context that demands a ZooError whose message is one line and matches."""

    @contextmanager
    def expect(match):
        with pytest.raises(ZooError, match=match) as caught:
            yield
        assert "\n" not in str(caught.value)

    return expect


@pytest.fixture
def make_trainer(tmp_path):
    """Builds a quiet CPU Trainer whose run folder is `tmp_path / "run"`."""

    def make(**kwargs):
        kwargs = {"max_steps": 4, "max_epochs": -1, "accelerator": "cpu", "devices": 1, "logger": False} | kwargs
        kwargs = {"enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0} | kwargs
        kwargs = {"enable_checkpointing": False, "default_root_dir": str(tmp_path / "run")} | kwargs
        if kwargs["devices"] > 1:
            kwargs["strategy"] = "ddp_fork"
        return L.Trainer(use_distributed_sampler=False, **kwargs)

    return make


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Keep every test off the hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that puts a folder into an otherwise empty local cache of the hub."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def add(repo, folder, revision="main", absent=()):
        """Cache `folder` as a revision of `repo`, with files known to be absent from it; returns the commit."""
        commit = hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()
        home = cache / f"models--{repo.replace('/', '--')}"
        shutil.copytree(folder, home / "snapshots" / commit)
        for name, text in {f"refs/{revision}": commit, **{f".no_exist/{commit}/{name}": "" for name in absent}}.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text)
        return commit

    return add
