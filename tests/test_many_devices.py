"""The estimates on the page about many devices follow from its own formula, and from networks and benchmarks."""

import re
from pathlib import Path

import pytest
import torch

from zoo.models import GPT2, TopKSAE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "many_devices.md").read_text("utf-8")
TABLE = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in PAGE.splitlines() if line.startswith("| ")}
NVLINK, PCIE, DEVICES = 450e9, 25e9, 8
CASES = {  # column -> network, and seconds of computing on one device
    0: (lambda: GPT2(), 65_536 / 459_600),
    1: (lambda: TopKSAE(768, 24576), 4.55e-3 / DEVICES),
}


def numbers(row, column):
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?", TABLE[row][column])]


def close(stated, true):
    """Within the rounding of a number with two figures."""
    return stated == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("column", CASES)
def test_the_estimates_for_eight_gpus_follow_from_bytes_and_times(column):
    make, computing = CASES[column]
    with torch.device("meta"):
        n = sum(p.numel() for p in make().parameters())
    sent = 2 * (DEVICES - 1) / DEVICES * 4 * n
    assert numbers("gradients", column) == [round(n / 1e6, 1), round(4 * n / 1e6)]
    assert numbers("sent through each device", column) == [round(sent / 1e6)]
    assert close(numbers("computing on one device", column)[-1], 1e3 * computing)
    nvlink, pcie = (float(ms) for ms in re.findall(r"([\d.]+) ms", TABLE["sending with NVLink, with PCIe 4"][column]))
    assert close(nvlink, 1e3 * sent / NVLINK)
    assert close(pcie, 1e3 * sent / PCIE)
    stated = re.findall(r"[01]\.\d\d", TABLE["efficiency if nothing overlaps"][column])
    assert [float(x) for x in stated] == [round(computing / (computing + sent / b), 2) for b in (NVLINK, PCIE)]


def test_the_times_are_those_of_the_benchmarks():
    measured = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert "bare loop | 459,600 tokens/s" in measured
    assert "| 4.55 ms a step" in measured


def test_a_frozen_embedding_leaves_out_as_many_numbers_as_are_stated():
    with torch.device("meta"):
        net = GPT2()
    left_out, of = re.search(r"leaves out (\d+) of (\d+) million numbers", PAGE).groups()
    assert int(left_out) == round(net.W_E.numel() / 1e6)
    assert int(of) == round(sum(p.numel() for p in net.parameters()) / 1e6)
