import csv

import pytest
import torch

from zoo.active_inputs import BernoulliActive, FixedActive
from zoo.callbacks import GateErrors
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import AdamLinear, ToySuperposition, UniversalGates

M = 6


def sampled(active=None, n_seeds=2):
    return SparseFeaturesDataModule(M, active or FixedActive(2), n_seeds=n_seeds, batch_size=16, n_validation=64)


def gates(n_seeds=2, learning_rate=0.0, **options):
    torch.manual_seed(0)
    return UniversalGates(M, M, 8, n_seeds, optimizer=AdamLinear(learning_rate, 0), **options)


def trained(make_trainer, module, data=None, **options):
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None} | options
    make_trainer(callbacks=[GateErrors()], **options).fit(module, data or sampled())


def table(tmp_path):
    with (tmp_path / "run" / "gate_errors" / "cases.csv").open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def test_errors_of_every_depth_seed_and_case_are_written(make_trainer, tmp_path):
    module, data = gates(gate="xor", depth=2), sampled(BernoulliActive(3.0))
    trained(make_trainer, module, data)
    batches = list(data.val_dataloader())
    f = torch.cat([module.per_seed(batch["f"]) for batch in batches], 1)  # (seeds, 64, m)
    rows = table(tmp_path)
    assert len(rows) == 2 * 2 * 4
    with torch.no_grad():
        y = module.net(f)
    values = f.bool()
    for t in range(2):
        (i, j), truth = module.net.gates(t)
        case = 2 * values[..., i].long() + values[..., j].long()
        error = (y[t] - truth[case]).double()
        values = truth[case] > 0
        for seed in range(2):
            for c, name in enumerate(("00", "01", "10", "11")):
                row, e = rows[8 * t + 4 * seed + c], error[seed][case[seed] == c]
                assert (row["depth"], row["seed"], row["case"]) == (str(t + 1), str(seed), name)
                found = {key: float(row[key]) for key in ("n", "mean", "rms", "bias", "max", "right")}
                expected = {"n": len(e), "mean": e.abs().mean(), "rms": e.square().mean().sqrt(), "bias": e.mean()}
                expected |= {"max": e.abs().max(), "right": (e.abs() < 0.25).double().mean()}
                assert found == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("active", [FixedActive(2), FixedActive(5)])
def test_the_errors_are_drawn_also_where_a_case_does_not_occur(make_trainer, tmp_path, figures, active, depth):
    module = gates(depth=depth)
    trained(make_trainer, module, sampled(active))
    (figure,) = figures
    assert len(figure.axes) == 4 * depth
    for i, axes in enumerate(figure.axes):
        bins = module.case_errors[i // 4]["bins"][i % 4]
        if axes.texts[0].get_text() == "does not occur":
            assert not bins.any()
        else:
            assert axes.patches[0].get_data()[0] == pytest.approx((bins / bins.sum() * 40).numpy(), rel=1e-4)
    assert (tmp_path / "run" / "gate_errors" / "cases.png").is_file()
    unknown = {row["case"] for row in table(tmp_path) if row["depth"] == "1" and row["mean"] == "nan"}
    assert unknown == ({"00"} if active.n_active == 5 else set())


def test_means_over_seeds_by_depth_and_case_are_in_tensorboard(make_trainer, tmp_path, texts):
    trained(make_trainer, gates(depth=2), sampled(BernoulliActive(3.0)), logger=True)
    header, _, *lines = texts("gates/errors/by_case")
    assert header == ["depth", "case", "mean", "rms", "bias", "max", "right"]
    rows = table(tmp_path)
    assert len(lines) == 8
    for depth, case, *numbers in lines:
        own = [row for row in rows if (row["depth"], row["case"]) == (depth, case)]
        means = [sum(float(row[name]) for row in own) / 2 for name in header[2:]]
        assert [float(number) for number in numbers] == pytest.approx(means, abs=1e-4)


def test_without_a_validation_nothing_is_written(make_trainer, tmp_path):
    trained(make_trainer, gates(), limit_val_batches=0)
    assert not (tmp_path / "run" / "gate_errors").exists()


def test_the_sanity_check_is_no_validation(make_trainer, tmp_path):
    trained(make_trainer, gates(), num_sanity_val_steps=1, val_check_interval=100)
    assert not (tmp_path / "run" / "gate_errors").exists()


def test_a_checkpoint_after_a_validation_brings_the_table_and_the_end_does_not_write_it_again(make_trainer, tmp_path):
    callback, module, data = GateErrors(), gates(learning_rate=0.1), sampled()
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trainer = make_trainer(callbacks=[callback], max_steps=2, **options)
    trainer.fit(module, data)
    file = tmp_path / "run" / "gate_errors" / "cases.csv"
    file.unlink()
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    assert not file.exists()
    trainer.validate(module, data, verbose=False)
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    assert file.exists()


def test_two_processes_write_what_one_writes(make_trainer, tmp_path):
    trained(make_trainer, gates(learning_rate=0.05))
    one = table(tmp_path)
    trained(make_trainer, gates(learning_rate=0.05), devices=2)
    two = table(tmp_path)
    for name in ("n", "mean", "rms", "bias", "max", "right"):
        expected = pytest.approx([float(r[name]) for r in one], rel=1e-4, abs=1e-6)
        assert [float(r[name]) for r in two] == expected


def test_a_module_without_gates_is_refused_in_one_line(make_trainer, refused):
    with refused("GateErrors needs a model with case_errors; ToySuperposition has no case_errors"):
        make_trainer(callbacks=[GateErrors()]).fit(ToySuperposition(M, 2, 2), sampled())
