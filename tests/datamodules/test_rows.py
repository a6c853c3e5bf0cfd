from itertools import islice

import lightning as L
import numpy as np
import pytest
import torch

import zoo
from zoo.datamodules import (
    CovarianceMatchedRows,
    EmbeddingRowsDataModule,
    IsotropicRows,
    PermutedCoordinateRows,
    PlantedRows,
)
from zoo.datamodules.row_loaders import AllRowsLoader, RowEvaluationLoader, RowLoader, cumulative, draw
from zoo.models import GPT2, AdamLinear, SparseAutoencoder, TopKSAE

W = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) @ torch.randn(
    5, 5, generator=torch.Generator().manual_seed(1)
)
COUNTS = np.arange(60) ** 2  # row 0 never occurs
ROWS = torch.arange(60.0).unsqueeze(1)  # every row says which it is


@pytest.fixture
def matrix(tmp_path):
    np.save(tmp_path / "W.npy", W.numpy())
    return str(tmp_path / "W.npy")


@pytest.fixture
def counts(tmp_path):
    np.save(tmp_path / "counts.npy", COUNTS)
    return str(tmp_path / "counts.npy")


def data(source=None, **options):
    made = EmbeddingRowsDataModule(source, **{"batch_size": 12, **options})
    made.setup()
    return made


def loader(rank=0, world_size=1, seed=0, weights=None, batch_size=6):
    return RowLoader(ROWS, torch.arange(5, 60), weights, batch_size, seed, rank, world_size)


def drawn(loader, steps):
    return torch.cat([loader.batch(step)["x"] for step in range(steps)]).squeeze(1).long()


def test_a_batch_depends_on_seed_and_step_alone():
    used = loader()
    for step in (200, 0, 23, 5):
        used.batch(step)
    for step in (0, 5, 22, 100):
        assert torch.equal(used.batch(step)["x"], loader().batch(step)["x"])
    assert not torch.equal(loader(seed=1).batch(0)["x"], loader().batch(0)["x"])


@pytest.mark.parametrize("weights", [None, torch.arange(55.0)])
@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_out_the_batch_of_one_rank(world_size, weights):
    ranks = [loader(rank, world_size, weights=weights) for rank in range(world_size)]
    for step in (0, 1, 40):
        assert torch.equal(torch.cat([r.batch(step)["x"] for r in ranks]), loader(weights=weights).batch(step)["x"])


@pytest.mark.parametrize("n_drawn", [0, 5, 9, 31])
def test_a_resumed_loader_goes_on_with_the_same_batches(n_drawn):
    def stream(loader):
        while True:
            yield from loader

    used, resumed = loader(), loader()
    list(islice(stream(used), n_drawn))
    resumed.load_state_dict(used.state_dict())
    for step, a, b in zip(range(n_drawn, n_drawn + 30), stream(used), stream(resumed), strict=False):
        assert torch.equal(a["x"], b["x"])
        assert torch.equal(a["x"], loader().batch(step)["x"])


def test_an_epoch_is_long_enough_for_gradients_to_accumulate_however_few_the_rows():
    used = loader(batch_size=100)
    assert len(used) == len(list(used)) == 1000
    used.load_state_dict({"position": 2300})
    assert len(list(used)) == 700


@pytest.mark.parametrize("power", [0, 0.5])
def test_without_a_batch_size_every_batch_holds_all_training_rows_with_their_weights(matrix, counts, power):
    made = data(matrix, token_counts=counts, frequency_power=power, batch_size=None, val_fraction=0.2)
    batches = made.train_dataloader()
    for batch in (next(iter(batches)), batches.batch(7)):
        assert torch.equal(batch["row"], made.train_rows)
        assert torch.equal(batch["x"], W[made.train_rows])
        weight = torch.from_numpy(COUNTS**power).double()
        torch.testing.assert_close(batch["weight"].double(), (weight / weight.mean())[made.train_rows])
    assert not made.held_out[batch["row"]].any()


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_share_out_all_rows_as_evenly_as_they_go(world_size):
    ids, weights = torch.arange(5, 60), torch.arange(60.0)
    ranks = [AllRowsLoader(ROWS, ids, weights, rank, world_size).batch(3) for rank in range(world_size)]
    for key, whole in AllRowsLoader(ROWS, ids, weights).batch(3).items():
        assert torch.equal(torch.cat([part[key] for part in ranks]), whole)
    sizes = [len(part["row"]) for part in ranks]
    assert max(sizes) - min(sizes) <= 1


def test_without_a_batch_size_evaluation_shows_every_row_once(matrix):
    made = data(matrix, batch_size=None)
    rows = torch.cat([batch["row"] for batch in made.val_dataloader()])
    assert sorted(rows.tolist()) == list(range(60))


def test_a_loader_of_all_rows_counts_its_batches_as_others_do(matrix):
    used, resumed = (data(matrix, batch_size=None).train_dataloader() for _ in range(2))
    list(islice(used, 5))
    resumed.load_state_dict(used.state_dict())
    assert resumed.position == 5
    assert len(list(resumed)) == len(used) - 5


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_rows_are_drawn_with_the_power_of_their_frequency(matrix, counts, power):
    made = data(matrix, token_counts=counts, frequency_power=power, batch_size=1200)
    batches = made.train_dataloader()
    batches.rows = ROWS
    n = 200 * 1200
    found = torch.bincount(drawn(batches, 200), minlength=60).double()
    weight = torch.from_numpy(COUNTS**power).double() * ~made.held_out
    expected = n * weight / weight.sum()
    assert ((found - expected).abs() <= 5 * expected.sqrt()).all()  # a share drawn n times errs by less than sqrt
    assert found.sum() == n


def test_the_effective_number_of_rows_of_known_weights(matrix, tmp_path):
    assert data(matrix).effective_rows == pytest.approx(54)
    np.save(tmp_path / "counts.npy", np.array([90] * 20 + [0] * 40))
    made = data(matrix, token_counts=str(tmp_path / "counts.npy"), frequency_power=1, val_fraction=0)
    assert made.effective_rows == pytest.approx(20)
    assert made.never_occurring.tolist() == [False] * 20 + [True] * 40


@pytest.mark.parametrize("power", [0, 1])
def test_evaluation_shows_every_row_once_with_its_weight(matrix, counts, power):
    made = data(matrix, token_counts=counts, frequency_power=power, val_fraction=0.2)
    for batches in (made.val_dataloader(), made.test_dataloader()):
        seen = {key: torch.cat([b[key] for b in batches]) for key in ("x", "row", "weight", "held_out")}
        assert len(batches) == len(list(batches)) == 5
        assert sorted(seen["row"].tolist()) == list(range(60))
        assert torch.equal(seen["x"], W[seen["row"]])
        assert torch.equal(seen["held_out"], made.held_out[seen["row"]])
        assert seen["weight"].mean().item() == pytest.approx(1)
        share = torch.from_numpy(COUNTS)[seen["row"]].double()  # also where rows are drawn all alike
        torch.testing.assert_close(seen["weight"].double(), share / share.mean())
        assert not torch.equal(seen["row"], torch.arange(60))


@pytest.mark.parametrize("n_rows", [24, 25, 37])
def test_evaluation_ranks_share_out_the_batches_and_one_may_get_nothing(n_rows):
    rows, ones, none = torch.arange(float(n_rows)).unsqueeze(1), torch.ones(n_rows), torch.zeros(n_rows).bool()
    whole = list(RowEvaluationLoader(rows, ones, none, 12))
    ranks = [list(RowEvaluationLoader(rows, ones, none, 12, rank, 3)) for rank in range(3)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat([p["row"] for p in parts]), batch["row"])
    assert (len(ranks[2][-1]["x"]) == 0) == (n_rows != 24)


def test_held_out_rows_are_never_trained_on(matrix):
    made = data(matrix, val_fraction=0.25)
    assert made.held_out.sum() == 15
    batches = made.train_dataloader()
    batches.rows = ROWS
    assert set(drawn(batches, 100).tolist()) == set(made.train_rows.tolist())
    assert not made.held_out[made.train_rows].any()
    assert not torch.equal(made.held_out, data(matrix, val_fraction=0.25, seed=1).held_out)
    assert not data(matrix, val_fraction=0).held_out.any()


def test_a_sample_is_of_training_rows_drawn_by_weight(matrix, counts):
    everything = data(matrix).sample()
    assert torch.equal(everything, W[data(matrix).train_rows])
    made = data(matrix, token_counts=counts, frequency_power=1)
    sample = made.sample()
    assert len(sample) == 16_384
    assert torch.equal(sample, data(matrix, token_counts=counts, frequency_power=1).sample())
    weight = torch.from_numpy(COUNTS).double()[made.train_rows]
    mean = (weight / weight.sum()) @ W[made.train_rows].double()
    assert ((sample.mean(0) - mean).abs() < 5 * W.std(0) / 16_384**0.5).all()


def test_a_null_models_rows_take_the_place_of_the_sources(matrix, counts):
    made = data(matrix, null_model=IsotropicRows(seed=3), token_counts=counts, frequency_power=1)
    assert not torch.equal(made.W_E, W)
    torch.testing.assert_close(made.W_E.norm(dim=1), W.norm(dim=1))
    assert made.row_counts.tolist() == COUNTS.tolist()
    assert torch.equal(made.W_E, data(matrix, null_model=IsotropicRows(seed=3)).W_E)
    assert not torch.equal(made.W_E, data(matrix, null_model=IsotropicRows(seed=4)).W_E)


@pytest.mark.parametrize("kind", [IsotropicRows, CovarianceMatchedRows, PermutedCoordinateRows])
@pytest.mark.parametrize("match_norms", [True, False])
def test_null_rows_match_norms_only_if_asked_to(matrix, kind, match_norms):
    made = data(matrix, null_model=kind(match_norms=match_norms))
    assert torch.allclose(made.W_E.norm(dim=1), W.norm(dim=1)) == match_norms


def test_rows_that_promise_a_covariance_are_plain_unless_norms_are_asked_for(matrix):
    for kind in (CovarianceMatchedRows, PermutedCoordinateRows):
        assert torch.equal(data(matrix, null_model=kind()).W_E, data(matrix, null_model=kind(match_norms=False)).W_E)
    made = data(matrix, null_model=CovarianceMatchedRows()).W_E
    torch.testing.assert_close(torch.cov(made.T), torch.cov(W.T))


def test_a_covariance_that_norms_do_not_allow_is_told(tmp_path, caplog):
    few = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    few[0] *= 30  # a mean and a covariance that only 6 rows with these very norms have
    np.save(tmp_path / "few.npy", few.numpy())
    model = CovarianceMatchedRows(match_norms=True, seed=1)
    with caplog.at_level("INFO"):
        data(str(tmp_path / "few.npy"), null_model=model)
    assert model.moment_error > 0.01
    assert f"a mean and covariance that differ from the source's by {model.moment_error:.1%}" in caplog.text


def test_permuted_coordinates_without_norms_have_the_covariance_up_to_chance(matrix):
    rows = data(matrix, null_model=PermutedCoordinateRows(match_norms=False)).W_E
    torch.testing.assert_close(rows.mean(0), W.mean(0))
    torch.testing.assert_close(rows.var(0).sum(), W.var(0).sum())


@pytest.mark.parametrize("source", [True, False])
def test_planted_rows_are_sparse_in_the_atoms_the_data_names(matrix, source):
    model = PlantedRows(n_atoms=8, sparsity=2)
    made = data(matrix, null_model=model) if source else data(null_model=model, n_rows=60, d_in=5)
    assert (made.W_E.shape, made.true_atoms.shape, made.d_in) == ((60, 5), (8, 5), 5)
    pairs = torch.combinations(torch.arange(8))
    for row in made.W_E:
        residuals = [torch.linalg.lstsq(made.true_atoms[p].T, row).solution for p in pairs]
        best = min((row - a @ made.true_atoms[p]).norm() for a, p in zip(residuals, pairs, strict=True))
        assert best < 1e-4 * row.norm()
    if source:
        torch.testing.assert_close(made.W_E.norm(dim=1), W.norm(dim=1))


def test_real_rows_have_no_true_atoms(matrix):
    assert data(matrix).true_atoms is None


def test_a_checkpoint_brings_names_and_counts_of_its_rows(tiny_data, tmp_path):
    net = GPT2(vocab_size=302, context_length=4, d_model=4, n_layers=1, n_heads=1)  # two rows without a token
    counts = [*tiny_data.row_counts.tolist(), 0, 0]
    zoo.save(net, tmp_path / "model", tokenizer_json=tiny_data.tokenizer.to_str(), token_counts=counts)
    made = data(str(tmp_path / "model"), frequency_power=1)
    assert torch.equal(made.W_E, net.W_E)
    assert made.row_labels == [*tiny_data.row_labels, "row 300", "row 301"]
    assert made.row_counts.tolist() == counts
    assert made.never_occurring[300:].all()
    positions = data(str(tmp_path / "model"), tensor="transformer.wpe.weight")
    assert (positions.row_counts, positions.row_labels) == (None, ["row 0", "row 1", "row 2", "row 3"])


def test_the_fingerprint_is_that_of_the_rows_and_their_weights(matrix, counts, tmp_path):
    np.save(tmp_path / "reversed.npy", COUNTS[::-1])
    one, other = (
        data(matrix, token_counts=file, frequency_power=1) for file in (counts, str(tmp_path / "reversed.npy"))
    )
    assert one.corpus_fingerprint != other.corpus_fingerprint
    assert data(matrix, null_model=IsotropicRows()).corpus_fingerprint != data(matrix).corpus_fingerprint
    assert data(matrix, seed=5).corpus_fingerprint == data(matrix).corpus_fingerprint


def test_data_of_rows_are_not_taken_for_text(matrix):
    names = ("vocab_size", "context_length", "tokenizer")
    assert not any(hasattr(data(matrix), name) for name in names)


class Mean(L.LightningModule):
    """Learns the mean of its batches."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(5))
        self.seen = []

    def training_step(self, batch, batch_idx):
        return (batch["x"] - self.mean).square().sum(1).mean()

    def validation_step(self, batch, batch_idx):
        self.seen.append(batch["row"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_two_processes_train_as_one(matrix, counts, make_trainer):
    means = []
    for devices in (1, 2):
        m = Mean()
        made = EmbeddingRowsDataModule(matrix, token_counts=counts, frequency_power=0.5, batch_size=12)
        make_trainer(max_steps=15, devices=devices).fit(m, made)
        means.append(m.mean.detach().clone())
    torch.testing.assert_close(means[0], means[1])
    assert means[0].any()


def test_a_resumed_fit_ends_in_the_same_bits(matrix, make_trainer, tmp_path):
    whole, first, second = Mean(), Mean(), Mean()
    make_trainer(max_steps=11).fit(whole, data(matrix))  # 4 batches an epoch
    trainer = make_trainer(max_steps=6, limit_val_batches=1.0)
    trainer.fit(first, data(matrix))
    trainer.save_checkpoint(tmp_path / "six.ckpt")
    make_trainer(max_steps=11).fit(second, data(matrix), ckpt_path=tmp_path / "six.ckpt")
    assert torch.equal(second.mean, whole.mean)
    assert not torch.equal(first.mean, whole.mean)


def autoencoder():
    return SparseAutoencoder(TopKSAE(5, 8, k=2), AdamLinear(learning_rate=0.01, warmup_steps=0))


def test_an_autoencoder_trains_on_all_rows_at_once(matrix, make_trainer):
    m, batches = autoencoder(), []
    loss = m.net.loss
    m.net.loss = lambda x, *args: batches.append(x) or loss(x, *args)
    start = m.net.W_dec.detach().clone()
    made = data(matrix, batch_size=None)
    make_trainer(max_steps=3).fit(m, made)
    assert len(batches) == 3
    assert all(torch.equal(x, W[made.train_rows]) for x in batches)
    assert ((m.net.W_dec - start).norm(dim=1) > 0).all()


def test_an_autoencoder_that_should_weigh_all_rows_is_refused(matrix, counts, make_trainer, refused):
    made = data(matrix, token_counts=counts, frequency_power=0.5, batch_size=None)
    with refused("cannot train on weighted rows: with data.frequency_power, set data.batch_size to a number"):
        make_trainer().fit(autoencoder(), made)
    make_trainer(limit_val_batches=1.0).validate(autoencoder(), made, verbose=False)


def test_a_batch_that_does_not_divide_by_the_devices_is_refused(matrix, make_trainer, refused):
    made = data(matrix, batch_size=13)
    made.trainer = make_trainer(devices=2)
    for loader in (made.train_dataloader, made.val_dataloader):
        with refused("batch_size 13 .* is not a multiple of the number of devices, 2"):
            loader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"val_fraction": float("nan")}, "val_fraction is nan"),
        ({"frequency_power": -0.5}, "frequency_power is -0.5"),
        ({"frequency_power": float("inf")}, "frequency_power is inf"),
        ({"frequency_power": 0.5}, "give token_counts, a .npy file"),
        ({"seed": -1}, "data.seed is -1"),
        ({"d_in": 5}, "n_rows and d_in are given by the source"),
        ({"token_counts": "none.npy"}, "none.npy cannot be read"),
        ({"step": 3}, "holds one step only"),
    ],
)
def test_arguments_out_of_range_are_refused(matrix, refused, options, message):
    with refused(message):
        EmbeddingRowsDataModule(matrix, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a null_model and positive n_rows and d_in"),
        ({"null_model": IsotropicRows()}, "give a null_model and positive n_rows and d_in"),
        ({"null_model": IsotropicRows(), "n_rows": 9, "d_in": 0}, "positive n_rows and d_in"),
        ({"null_model": CovarianceMatchedRows(), "n_rows": 9, "d_in": 4}, "CovarianceMatchedRows requires the rows of"),
        ({"null_model": IsotropicRows(), "n_rows": 9, "d_in": 4, "tensor": "a"}, "step and tensor require a source"),
        ({"null_model": IsotropicRows(), "n_rows": 1, "d_in": 4}, "IsotropicRows has 1 rows; at least 2"),
    ],
)
def test_too_little_to_make_rows_from_is_refused(refused, options, message):
    with refused(message):
        EmbeddingRowsDataModule(**options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_row_that_is_no_number_is_named(tmp_path, refused, bad):
    broken = W.clone()
    broken[[17, 40], 2] = bad
    np.save(tmp_path / "W.npy", broken.numpy())
    with refused("row 17 of .* NaN or infinite"):
        EmbeddingRowsDataModule(str(tmp_path / "W.npy"))


BAD_COUNTS = [
    (np.ones(60), "expected 60 counts, one per row"),
    (np.ones(59, int), "expected 60 counts, one per row"),
    (np.ones((60, 1), int), "expected 60 counts, one per row"),
    (-np.ones(60, int), "from -1 to -1; counts must be at least 0"),
    (np.full(60, 2**63, np.uint64), "to 9223372036854775808; counts must be"),
]


@pytest.mark.parametrize(("counts", "message"), BAD_COUNTS)
def test_counts_that_do_not_fit_the_rows_are_refused(matrix, tmp_path, refused, counts, message):
    np.save(tmp_path / "counts.npy", counts)
    with refused(message):
        EmbeddingRowsDataModule(matrix, token_counts=str(tmp_path / "counts.npy"))


def test_counts_of_nothing_but_zeros_are_refused(matrix, tmp_path, refused):
    np.save(tmp_path / "counts.npy", np.zeros(60, int))
    with refused("the tokens of all training rows have count 0"):
        EmbeddingRowsDataModule(matrix, token_counts=str(tmp_path / "counts.npy"), frequency_power=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlantedRows(8, 9), "sparsity is 9"),
        (lambda: PlantedRows(8, 2, noise=1), "noise is 1"),
        (lambda: IsotropicRows(seed=-1), "seed is -1"),
    ],
)
def test_null_models_out_of_range_are_refused(refused, make, message):
    with refused(message):
        make()


def test_training_rows_that_are_all_the_same_are_refused(tmp_path, refused):
    np.save(tmp_path / "W.npy", np.ones((30, 4), np.float32))
    with refused("the 27 training rows of .* are all the same"):
        EmbeddingRowsDataModule(str(tmp_path / "W.npy"))


def test_steps_that_are_revisions_of_a_hub_repository_are_named_by_a_pattern(hub, tmp_path, refused):
    """GPT-NeoX weights as Pythia's: one revision per step, the embedding under its own name."""
    from safetensors.torch import save_file

    for step in (0, 512):
        folder = tmp_path / str(step)
        folder.mkdir()
        rows = torch.randn(40, 8, generator=torch.Generator().manual_seed(step))
        save_file({"gpt_neox.embed_in.weight": rows, "embed_out.weight": rows + 1}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
        hub("org/neox", folder, revision=f"step{step}", absent=["tokenizer.json"])
        data = EmbeddingRowsDataModule("hf:org/neox@step{step}", step)
        assert torch.equal(data.W_E, rows)
    with refused("contains {step}; choose a training step"):
        EmbeddingRowsDataModule("hf:org/neox@step{step}")


def test_a_row_without_weight_is_not_drawn_where_a_number_falls_on_its_edge():
    class Edges:
        def random(self, n):
            return np.array([0.0, 0.5, 0.999])

    assert draw(Edges(), cumulative(torch.tensor([0.0, 1.0, 0.0, 1.0])), 3).tolist() == [1, 3, 3]
