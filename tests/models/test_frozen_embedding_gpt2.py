import math
from itertools import islice

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from supported.tokenizers import letters

import zoo
from zoo.datamodules import LocalFiles, TextDataModule, TokenizerFile
from zoo.models import AdamWCosine, FrozenEmbeddingGPT2, GaussianEmbedding, LowCoherenceEmbedding

TINY = {"vocab_size": 300, "context_length": 16, "d_model": 16, "n_layers": 1, "n_heads": 2}
DECAY = AdamWCosine(learning_rate=0.05, weight_decay=0.5, embedding_weight_decay=0.5, warmup_steps=0)


def module(**kwargs):
    L.seed_everything(0, verbose=False)
    return FrozenEmbeddingGPT2(**(TINY | {"optimizer": DECAY} | kwargs))


def weights(m):
    return {name: tensor.clone() for name, tensor in m.net.state_dict().items()}


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("tied", [True, False])
def test_frozen_rows_never_move_under_weight_decay(tiny_data, make_trainer, tied, precision, devices):
    m = module(tied=tied)
    before = weights(m)
    make_trainer(devices=devices, precision=precision, gradient_clip_val=1.0).fit(m, tiny_data)
    after = weights(m)
    assert torch.equal(after["transformer.wte.weight"], before["transformer.wte.weight"])
    assert torch.equal(after["lm_head.weight"], before["lm_head.weight"]) == tied
    assert not torch.equal(after["transformer.wpe.weight"], before["transformer.wpe.weight"])


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_only_the_chosen_rows_move(tiny_data, make_trainer, tied, devices):
    m = module(tied=tied, trained_rows="0-39,299")
    before = m.net.W_E.detach().clone()
    make_trainer(devices=devices).fit(m, tiny_data)
    moved = (before != m.net.W_E).any(dim=1)
    assert torch.equal(moved.nonzero().flatten(), torch.tensor([*range(40), 299]))


def test_freezing_some_rows_trains_the_others_as_if_nothing_were_frozen_in_the_first_step(tiny_data, make_trainer):
    runs = []
    for frozen_rows in ("none", "100-199"):
        m = module(frozen_rows=frozen_rows)
        make_trainer(max_steps=1).fit(m, tiny_data)
        runs.append(m.net.W_E.detach())
    free = torch.ones(300, dtype=torch.bool)
    free[100:200] = False
    assert torch.equal(runs[0][free], runs[1][free])


@pytest.mark.parametrize("frozen_rows", ["all", "none", "5-249"])
@pytest.mark.parametrize("tied", [True, False])
def test_two_processes_reach_the_result_of_one_at_equal_global_batch(tiny_data, make_trainer, tied, frozen_rows):
    results = []
    for devices in (1, 2):
        m = module(tied=tied, frozen_rows=frozen_rows, optimizer=AdamWCosine(learning_rate=1e-3, warmup_steps=2))
        trainer = make_trainer(devices=devices, max_steps=12, limit_val_batches=1.0, accumulate_grad_batches=2)
        trainer.fit(m, tiny_data)
        results.append((weights(m), trainer.validate(m, tiny_data, verbose=False)[0]["val/loss"]))
    (one, loss_one), (two, loss_two) = results
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=2e-6, rtol=1e-4)
    assert loss_two == pytest.approx(loss_one, abs=1e-5)


def test_validation_metrics_equal_a_direct_computation_over_the_whole_split(tiny_data, make_trainer):
    m = module()
    metrics = make_trainer(limit_val_batches=1.0).validate(m, tiny_data, verbose=False)[0]
    tokens = torch.from_numpy(tiny_data.cache.tokens("val").astype("int64"))
    total = 0.0
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        total += F.cross_entropy(m.net(window[None, :-1])[0].double(), window[1:], reduction="sum").item()
    loss = total / (len(tokens) - 1)
    first = tiny_data.tokenizer.id_to_token(int(tokens[0]))  # a byte-level token has a letter for every byte
    n_bytes = tiny_data.cache.meta["splits"]["val"]["bytes"] - len(first)
    assert metrics["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["val/perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert metrics["val/bits_per_byte"] == pytest.approx(loss * (len(tokens) - 1) / (math.log(2) * n_bytes), rel=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_bits_per_byte_of_a_few_batches_are_over_the_bytes_of_their_targets(tiny_data, make_trainer, devices):
    m = module()
    metrics = make_trainer(limit_val_batches=3, devices=devices).validate(m, tiny_data, verbose=False)[0]
    total, n_bytes = 0.0, 0
    for batch in islice(tiny_data.val_dataloader(), 3):
        targets = batch["targets"].flatten()
        total += F.cross_entropy(m.net(batch["input_ids"]).flatten(0, 1).double(), targets, reduction="sum").item()
        n_bytes += sum(len(tiny_data.tokenizer.id_to_token(i)) for i in targets[targets > 0].tolist())
    assert metrics["val/bits_per_byte"] == pytest.approx(total / (math.log(2) * n_bytes), rel=1e-5)


def test_bits_per_byte_leave_out_the_text_that_the_tokenizer_loses(tiny_corpus, make_trainer, tmp_path):
    texts = [path.read_text("utf-8") for path in sorted(tiny_corpus.iterdir())]
    letters(None)(texts).save(str(tmp_path / "letters.json"))
    options = {"context_length": 16, "batch_size": 4, "val_fraction": 0.15, "test_fraction": 0.15, "max_lost": 1}
    source = TokenizerFile(str(tmp_path / "letters.json"))
    data = TextDataModule(LocalFiles([str(tiny_corpus)]), source, cache_dir=str(tmp_path / "cache"), **options)
    m = module(vocab_size=source.vocab_size)
    metrics = make_trainer(limit_val_batches=1.0).validate(m, data, verbose=False)[0]
    tokens = data.cache.tokens("val")[1:].tolist()
    n_bytes = sum(len(data.tokenizer.id_to_token(i)) for i in tokens if i != 0)  # ASCII letters only
    assert n_bytes < data.cache.meta["splits"]["val"]["bytes"]
    bits = metrics["val/loss"] * len(tokens) / math.log(2)
    assert metrics["val/bits_per_byte"] == pytest.approx(bits / n_bytes, rel=1e-5)


def test_a_network_with_nan_weights_validates_to_nan(tiny_data, make_trainer):
    m = module()
    m.net.W_E.data[5] = math.nan
    assert math.isnan(make_trainer(limit_val_batches=1.0).validate(m, tiny_data, verbose=False)[0]["val/loss"])


def test_a_learned_embedding_beats_its_frozen_start_on_the_training_text(tiny_data, make_trainer):
    losses = {}
    for frozen_rows in ("none", "all"):
        m = module(frozen_rows=frozen_rows, optimizer=AdamWCosine(learning_rate=1e-2, warmup_steps=10))
        make_trainer(max_steps=120).fit(m, tiny_data)
        losses[frozen_rows] = make_trainer(limit_val_batches=1.0).validate(m, tiny_data, verbose=False)[0]["val/loss"]
    assert losses["none"] < losses["all"] - 0.2


def test_runs_of_one_seed_share_all_weights_but_the_embedding():
    one, other = weights(module(embedding=GaussianEmbedding())), weights(module(embedding=LowCoherenceEmbedding(0.9)))
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing == {"transformer.wte.weight", "lm_head.weight"}


def test_load_from_checkpoint_rebuilds_a_module_made_in_python(tiny_data, make_trainer, tmp_path):
    m = module(embedding=LowCoherenceEmbedding(0.95, std=0.1), tied=False)
    trainer = make_trainer()
    trainer.fit(m, tiny_data)
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    again = FrozenEmbeddingGPT2.load_from_checkpoint(tmp_path / "m.ckpt")
    assert again.hparams["embedding"]["init_args"]["std"] == 0.1
    assert again.optimizer == DECAY
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), m.net.parameters(), strict=True))


def test_the_largest_cosine_of_a_low_coherence_embedding_is_told(caplog):
    m = module(embedding=LowCoherenceEmbedding(0.95, seed=0), vocab_size=40)
    rows = torch.nn.functional.normalize(m.net.W_E.detach())
    largest = (rows @ rows.T).abs().fill_diagonal_(0).max()
    assert f"{largest:.4f}" in caplog.text


def test_an_embedding_of_its_own_in_the_place_of_saved_weights_is_pointed_out(tmp_path, caplog):
    saved = zoo.save(module().net, tmp_path / "saved")
    kept = module(init_from=str(saved))
    assert "takes the place" not in caplog.text
    replaced = module(init_from=str(saved), embedding=GaussianEmbedding(seed=1))
    assert "a GaussianEmbedding replaces the embedding of init_from" in caplog.text
    assert torch.equal(kept.net.W_E, zoo.embedding(saved))
    assert not torch.equal(replaced.net.W_E, kept.net.W_E)
    assert torch.equal(replaced.net.W_U, kept.net.W_U) or kept.net.tied


def test_training_goes_on_from_saved_weights_and_refuses_other_sizes(tmp_path, refused):
    source = zoo.save(module(tied=False).net, tmp_path / "start")
    m = FrozenEmbeddingGPT2(300, 8, init_from=str(source), frozen_rows="none")
    assert torch.equal(m.net.lm_head.weight, zoo.load(source).lm_head.weight)
    assert m.net.training
    assert m.net.W_E.requires_grad
    with refused("d_model is 32, but init_from .* has 16"):
        FrozenEmbeddingGPT2(300, 8, d_model=32, init_from=str(source))
    with refused("vocab_size is 301, more than the 300 rows of init_from"):
        FrozenEmbeddingGPT2(301, 8, init_from=str(source))
    with refused("context_length is 32, more than the 16 positions"):
        FrozenEmbeddingGPT2(300, 32, init_from=str(source))


def test_frozen_and_trained_rows_cannot_both_be_given(refused):
    with refused("not both"):
        FrozenEmbeddingGPT2(**TINY, frozen_rows="0-3", trained_rows="4")
