import pytest
import torch
from torch import multiprocessing as mp
from torch import nn

from zoo.metrics import (
    FVU,
    L0,
    CosineSimilarity,
    FiringFrequency,
    LossRecovered,
    NMSEMeanSquare,
    NMSEVariance,
    ReconstructionMetrics,
    RelativeReconstructionBias,
    dead_share,
    dense_share,
)

D_IN, D_SAE, N = 6, 40, 300


def data():
    """Rows, noisy reconstructions, codes of which some are dense and some dead, weights."""
    g = torch.Generator().manual_seed(0)
    x = 5 + torch.randn(N, D_IN, generator=g)
    codes = torch.rand(N, D_SAE, generator=g) * (torch.rand(N, D_SAE, generator=g) < torch.linspace(0, 0.3, D_SAE))
    return 0.9 * x + 0.1 * torch.randn(N, D_IN, generator=g), x, codes, 0.01 + torch.rand(N, generator=g)


def whole():
    metrics = ReconstructionMetrics(D_SAE)
    metrics.update(*data())
    return {name: value.item() for name, value in metrics.compute().items()}


def test_the_summary_is_what_the_single_metrics_say():
    x_hat, x, codes, weight = data()
    single = {
        "rows": torch.tensor(float(N)),
        "fvu": NMSEVariance()(x_hat, x),
        "fvu_weighted": FVU()(x_hat, x, weight),
        "nmse_mean_square": NMSEMeanSquare()(x_hat, x),
        "cosine": CosineSimilarity()(x_hat, x),
        "reconstruction_bias": RelativeReconstructionBias()(x_hat, x),
        "l0": L0()(codes),
        "l0_weighted": L0()(codes, weight),
        "dead_latents": dead_share(FiringFrequency(D_SAE)(codes)),
        "dense_latents": dense_share(FiringFrequency(D_SAE)(codes)),
    }
    assert whole() == pytest.approx({name: value.item() for name, value in single.items()}, rel=1e-12)
    assert whole()["fvu"] != pytest.approx(whole()["fvu_weighted"], rel=1e-4)
    assert 0 < whole()["dead_latents"] < 0.2 < 0.5 < whole()["dense_latents"] < 1


def test_without_weights_every_row_counts_the_same():
    x_hat, x, codes, _ = data()
    metrics = ReconstructionMetrics(D_SAE)
    metrics.update(x_hat, x, codes)
    assert metrics.compute()["fvu"] == metrics.compute()["fvu_weighted"]


def test_after_a_reset_nothing_is_left():
    x_hat, x, codes, weight = data()
    metrics = ReconstructionMetrics(D_SAE)
    metrics.update(x_hat + 100, x, codes + 1, weight)
    metrics.reset()
    metrics.update(x_hat, x, codes, weight)
    assert {name: value.item() for name, value in metrics.compute().items()} == whole()


def test_sums_move_with_the_module_that_holds_them_and_are_not_saved_with_it():
    holder = nn.Module()
    holder.metrics = ReconstructionMetrics(D_SAE)
    assert holder.to("meta").metrics.fired.device.type == "meta"
    assert not holder.state_dict()


# Batch sizes of each rank: uneven, one rank with empty batches, and one that never saw a batch.
SHARES = {"uneven": [[120, 0, 30], [1, 0, 149]], "empty": [[300], [0]], "unseen": [[280, 20], []]}


def measure_on_a_rank(rank, folder, shares):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    reconstruction, language = ReconstructionMetrics(D_SAE), LossRecovered()
    frequency, l0, fvu = FiringFrequency(D_SAE), L0(), FVU()
    nn.ModuleList([reconstruction, language, frequency, l0, fvu]).to(torch.bfloat16)
    x_hat, x, codes, weight = data()
    start = rank * sum(shares[0])
    for size in shares[rank]:
        part = slice(start, start + size)
        reconstruction.update(x_hat[part], x[part], codes[part], weight[part])
        language.update(x[part], x_hat[part], codes[part, :D_IN], torch.arange(N)[part] % D_IN)
        frequency.update(codes[part])
        l0.update(codes[part], weight[part])
        fvu.update(x_hat[part], x[part], weight[part])
        start += size
    results = {"fvu_alone": fvu.compute(), "l0_alone": l0.compute(), **reconstruction.compute(), **language.compute()}
    results |= {f"latent {i}": share for i, share in enumerate(frequency.compute())}
    torch.save({name: value.item() for name, value in results.items()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_two_processes_find_what_one_finds(tmp_path, shares):
    x_hat, x, codes, _ = data()
    language, frequency = LossRecovered(), FiringFrequency(D_SAE)
    language.update(x, x_hat, codes[:, :D_IN], torch.arange(N) % D_IN)
    frequency.update(codes)
    expected = whole() | {name: value.item() for name, value in language.compute().items()}
    expected |= {"fvu_alone": expected["fvu_weighted"], "l0_alone": expected["l0_weighted"]}
    expected |= {f"latent {i}": share.item() for i, share in enumerate(frequency.compute())}
    mp.start_processes(measure_on_a_rank, (str(tmp_path), shares), nprocs=2, start_method="fork")
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(expected, rel=1e-9)
