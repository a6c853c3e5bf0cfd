import importlib
import io
import logging
import math
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCHMARKS = [p.stem for p in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in p.read_text("utf-8")]
GPT2 = "--n_layers 1 --d_model 8 --n_heads 2 --context_length 8 --vocab_size 32 --batch_size 2"
LASSO = "--n_rows 48 --d_model 8 --n_atoms 16 --threads 1 --repeats 1"
ACTIVATIONS = "--n_layers 2 --d_model 8 --n_heads 2 --context_length 8 --vocab_size 320 --layer 0 --batch_size 16"
ACTIVATIONS += " --positions_per_context 4 --prompts 2 --words 2000 --steps 2 --rounds 1"
SMALLEST = {  # benchmark -> runs: arguments, and what each prints, with numbers in groups
    "activations_speed": [
        (f"{ACTIVATIONS} --kind {kind}", r"forward pass alone +│ (\S+) \((\S+) to (\S+)\) +│ (\S+)")
        for kind in ("gpt2", "pythia --layer 1 --site resid_pre")
    ],
    "callback_cost": [(f"{GPT2} --every 2 --measurements 1", r"drift, every 100 +│ (\S+) +│ (\S+)")],
    "embedding_study_cost": [
        ("--shape 60 4 16 --steps 4", r"60 │ +4 │ +16 │ +(\S+) \((\d+)\) │ +(\S+) \((\d+)\) │ +(\S+) \((\d+)\)")
    ],
    "function_complexity": [("--functions 50 --plain 5 --rounds 1", r"zoo +│ (\S+) +│ (\S+) +│ (\S+)")],
    "function_sampling": [
        ("--n_samples 64 --widths 3 --repeats 1", r"batched torch +│ (\S+) \((\S+)\) +│ (\S+) \((\S+) to (\S+)\)"),
        ("--n_samples 64 --maps", r"random tables, 7 inputs +│ (\S+) +│ (\S+) +│ (\S+)"),
    ],
    "gpu": [
        ("--tiny --only device", r"bfloat16 product, 64 x 64 x 64 +│ (\S+)"),
        ("--tiny --only drift", r"one measurement, 33 x 8 +│ (\S+)"),
        ("--tiny --only gpt2", r"all callbacks.*│ (\S+) +│ tokens / s +│ (\S+) +│ nanoGPT's manner"),
        ("--tiny --only gpt2 --budget -1", r"gpt2 +│ +│ not begun after (\d+) s"),
    ],
    "llc_speed": [
        (f"--n 20 --batch_size {size} --chains 2 --steps 4 --repeats 1", r"zoo.* │ (\S+) +│ (\S+) \((\S+) to (\S+)\)")
        for size in (5, 20)
    ],
    "loading": [
        ("--megabytes 1 --repeats 1", r"transformers, the same GPT-2 +│ (\S+) +│ (\S+)"),
    ],
    "memory": [
        (
            f"{GPT2} --d_in 16 --d_sae 64 --k 4 --n_vectors 32",
            r"(?:nanoGPT's manner|dense codes) +│ (\S+) +│ (\S+) +│ (\S+) +│ (\S+) +│ (\S+) +│ (\S+)",
        )
    ],
    "sae_speed": [
        (
            "--d_in 16 --d_sae 32 --batch_size 64 --k 4 --steps 1 --rounds 1 --train_steps 2 --train_batch_size 16",
            r"zoo in Lightning +│ (\S+) \((\S+)\) +│ (\S+)",
        )
    ],
    "sparse_coding_speed": [
        (f"{LASSO} --out OUT", r"scikit-learn Lasso\(precompute\) +│ (\S+) \((\S+)\) +│ (\S+) \((\S+) to (\S+)\)"),
        (f"{LASSO} --full-pass", r"on cpu: (\S+) s, (\S+) rows / s; 48 rows certified"),
    ],
    "study_runner": [
        ("--tasks 2 --loops 10 --on-dask 2 --repeats 1", r"two workers / one.*│ (\S+) \((\S+) to (\S+)\)"),
        ("--tasks 2 --loops 10 --on-dask 2 --repeats 0", r"empty tasks, ms each +│ (\S+)"),
    ],
    "toy_speed": [
        (
            "--seeds 2 --steps 1 --repeats 1 --toys superposition-5 gates-16",
            r"plain loop, 2 networks batched +│ (\S+) +│ (\S+) \((\S+) to (\S+)\)",
        ),
        (
            "--seeds 2 --steps 1 --repeats 1 --toys products-12 compressed-40 power-6 circuits-30 attention",
            r"zoo, one seed per run +│ (\S+) +│ (\S+) \((\S+) to (\S+)\)",
        ),
    ],
    "training_speed": [
        (f"{GPT2} --steps 2 --repeats 1 --warmup 1 --drift-every 2", r"zoo in Lightning / transformers +│ (\S+)")
    ],
}


def in_this_python(code, **environment):
    """What some code prints, without the seconds that a fresh Python takes to import torch."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


@pytest.fixture
def benchmark(request, monkeypatch, tmp_path):
    """The benchmark's module, whose prints are not wrapped and whose changes to logging are undone."""
    for name, value in {"COLUMNS": "200", "TMPDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"):  # which benchmarks set when they are imported
        monkeypatch.setenv(name, "")
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr("benchmarks.fresh_python.run", in_this_python)
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    yield importlib.import_module(f"benchmarks.{request.param}")
    logger.setLevel(level)


@pytest.mark.parametrize("benchmark", BENCHMARKS, indirect=True, ids=str)
def test_every_benchmark_prints_finite_numbers_beside_its_peer(benchmark, capsys, tmp_path):
    name = benchmark.__name__.removeprefix("benchmarks.")
    assert name in SMALLEST, f"give benchmarks/{name}.py a smallest run here"
    for arguments, line in SMALLEST[name]:
        benchmark.main(arguments.replace("OUT", str(tmp_path)).split())
        printed = capsys.readouterr().out
        lines = list(re.finditer(line, printed))
        assert lines, printed
        for number in (number for found in lines for number in found.groups()):
            assert math.isfinite(float(number.replace(",", ""))), printed


@pytest.mark.parametrize("benchmark", ["memory"], indirect=True, ids=str)
def test_memory_is_counted_to_the_byte(benchmark):
    n = 2**20

    class Numbers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(n))

    peak = benchmark.peak(Numbers, lambda net: net.w.exp().sum(), torch.float32)
    scalars = 10 * 512  # a scalar counts as the least that a GPU gives
    assert 0 <= peak.kept - 12 * n < scalars  # weights, and two averages
    assert 0 <= peak.total - peak.kept - 8 * n < scalars  # the last step's gradient and the exponentials


@pytest.mark.parametrize("benchmark", ["memory"], indirect=True, ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_zoos_loss_never_holds_all_logits_in_float32(benchmark, precision, monkeypatch):
    monkeypatch.setattr("zoo.models.unembedded_loss.LOGITS_AT_ONCE", {"cpu": 16 * 4096})
    smallest = f"{GPT2} --vocab_size 4096 --batch_size 32".split()
    peaks = benchmark.gpt2_peaks(benchmark.parser().parse_args(smallest), precision)
    held = {name: peak.total - peak.kept for name, peak in peaks.items()}
    all_logits = 4 * 32 * 8 * 4096
    assert held["zoo"] < all_logits / 2
    assert held["the same network, all logits at a time"] > 2 * all_logits
    assert held["nanoGPT's manner"] > 2 * all_logits


@pytest.mark.parametrize("benchmark", ["memory"], indirect=True, ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_a_topk_autoencoder_never_holds_a_matrix_of_codes(benchmark, precision, monkeypatch):
    monkeypatch.setattr("zoo.models.sae.selection.CHUNK", 32)
    smallest = ["--d_in", "8", "--d_sae", "1024", "--k", "4", "--n_vectors", "1024"]
    peaks = benchmark.topk_peaks(benchmark.parser().parse_args(smallest), precision)
    held = {name: peak.total - peak.kept for name, peak in peaks.items()}
    matrix = 4 * 1024 * 1024
    assert held["zoo"] < matrix / 4
    assert held["dense codes"] > 2 * matrix / (1 if precision == torch.float32 else 2)


@pytest.mark.parametrize("benchmark", BENCHMARKS, indirect=True, ids=str)
def test_every_option_that_the_readme_names_exists(benchmark, capsys):
    command = f"python -m {benchmark.__name__}"
    sections = (ROOT / "benchmarks" / "README.md").read_text("utf-8").split("\n## ")
    (section,) = (part for part in sections if command in part)
    with pytest.raises(SystemExit, match=r"^0$"):
        benchmark.main(["--help"])
    options = re.findall(r"--[a-z][\w-]*", capsys.readouterr().out)
    assert set(re.findall(r"(?<=[ `\[])--[a-z][\w-]*", section)) <= set(options)
