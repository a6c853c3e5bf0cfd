"""Embeddings of models that cannot be loaded: named tensors, GGUF files, int8 with a scale."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from doing_studies import answer
from safetensors.torch import save_file

import zoo
from zoo.estimates import Estimate
from zoo.quantised import Rounding
from zoo.shared_tasks.rows import Rows
from zoo.source import Source
from zoo.studies.basis_pursuit import BasisPursuit, told_of_rounding
from zoo.studies.embedding import explained
from zoo.study import Work

WITH_GGUF = pytest.mark.skipif(not importlib.util.find_spec("gguf"), reason="needs the package gguf")
V, D = 60, 512
W = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32) * np.linspace(0.1, 3, V, dtype=np.float32)[:, None]


def written(path, kind="F32", data=W, tokens=None, model="gpt2", name="token_embd.weight"):
    """A GGUF file that the package writes, and the matrix that the package itself reads from these bytes."""
    import gguf

    writer, form = gguf.GGUFWriter(path, "llama"), gguf.GGMLQuantizationType[kind]
    if tokens:
        writer.add_tokenizer_model(model)
        writer.add_token_list(tokens)
    stored = gguf.quants.quantize(data, form) if data.dtype != np.uint8 else data
    writer.add_tensor(name, stored, raw_dtype=form)
    writer.add_tensor("output_norm.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, torch.from_numpy(gguf.quants.dequantize(stored, form).astype(np.float32).reshape(len(data), -1))


@WITH_GGUF
@pytest.mark.parametrize(("kind", "stored"), [("F32", W), ("F16", W.astype(np.float16).astype(np.float32))])
def test_plain_numbers_of_a_gguf_file_are_read_bit_for_bit(tmp_path, kind, stored):
    path, _ = written(tmp_path / "m.gguf", kind)
    found, rounding = Source.open(path).rounded_embedding()
    assert torch.equal(found, torch.from_numpy(stored))
    assert rounding is None


@WITH_GGUF
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_rows_are_within_a_step_and_their_error_is_as_estimated(tmp_path, kind):
    path, peer = written(tmp_path / "m.gguf", kind)
    found, rounding = Source.open(path).rounded_embedding()
    assert torch.equal(found, peer)
    error = (found.double() - torch.from_numpy(W)).square().sum(1)
    assert rounding.kind == kind
    # of 512 errors that are even within a step, the mean square has a relative deviation of 4 %; the _1 formats have no
    # error at two of 32 numbers, and the _0 formats cut off the largest number of a block by up to a step
    most = {"Q4_0": 1.5, "Q5_0": 1.3}.get(kind, 1.16)
    ratio = error / rounding.squared_error
    assert ratio.min() > 0.8
    assert ratio.max() < most
    rms_step = (12 * rounding.squared_error / D).sqrt()
    assert ((found - torch.from_numpy(W)).abs().amax(1) < 2.5 * rms_step).all()
    variance = torch.from_numpy(W).double().var(0, correction=0).sum() * V
    assert rounding.fvu(found, np.full(V, True)) == pytest.approx(float(error.sum() / variance), rel=0.1 * most)


@WITH_GGUF
@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_the_steps_of_k_quants_are_the_spacing_of_their_values(tmp_path, kind):
    """Random bytes are a valid matrix in these formats, except that scales have to be moderate float16."""
    import gguf

    form = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[form][1]
    blocks = np.random.default_rng(1).integers(0, 256, (V * 2, size), dtype=np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
    for at in scales:
        blocks[:, at : at + 2] = np.frombuffer(np.float16(0.25).tobytes(), np.uint8)
    path, peer = written(tmp_path / "m.gguf", kind, blocks.reshape(V, -1))
    found, rounding = Source.open(path).rounded_embedding()
    assert torch.equal(found, peer)
    within = 32 if kind in ("Q4_K", "Q5_K") else 16  # numbers that share a step
    groups = found.double().reshape(-1, within)
    steps = groups.sort(1).values.diff(dim=1)
    smallest = torch.where(steps > 0, steps, torch.inf).amin(1)
    smallest = torch.where(smallest.isinf(), 0.0, smallest)  # a scale of 0
    few_levels = kind in ("Q2_K", "Q3_K", "Q4_K")  # so that two of the numbers are neighbours
    per_row = (smallest.square() * within / 12).reshape(V, -1).sum(1)
    if few_levels:
        assert float(per_row.sum() / rounding.squared_error.sum()) == pytest.approx(1, abs=0.01)
    else:  # the smallest distance is a multiple of the step
        assert (per_row >= rounding.squared_error * (1 - 1e-6)).all()
        assert (per_row <= rounding.squared_error * 6).all()


@WITH_GGUF
def test_the_rounding_of_values_that_are_not_equally_spaced_is_not_known(tmp_path):
    import gguf

    blocks = np.zeros((V, D // 32 * gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.IQ4_NL][1]), np.uint8)
    path, peer = written(tmp_path / "m.gguf", "IQ4_NL", blocks)
    found, rounding = Source.open(path).rounded_embedding()
    assert torch.equal(found, peer)
    assert (rounding.kind, rounding.squared_error, rounding.fvu(found, np.full(V, True))) == ("IQ4_NL", None, None)


@WITH_GGUF
def test_a_gguf_file_tells_its_tokens(tmp_path):
    tokens = ["<|end|>", "Ġhello", "ing", "Ã©", "Ã", *(f"x{i}" for i in range(V - 5))]
    read = Source.open(written(tmp_path / "a.gguf", tokens=tokens)[0]).token_strings()
    assert read[:6] == ["<|end|>", " hello", "ing", "é", "<0xC3>", "x0"]
    tokens = ["<s>", "▁hello", "ing", "<0x0A>", *(f"x{i}" for i in range(V - 4))]
    read = Source.open(written(tmp_path / "b.gguf", tokens=tokens, model="llama")[0]).token_strings()
    assert read[:5] == ["<s>", " hello", "ing", "<0x0A>", "x0"]
    assert Source.open(written(tmp_path / "c.gguf")[0]).token_strings() is None


@WITH_GGUF
def test_a_gguf_file_on_the_hub_is_read_at_its_revision(hub, refused, tmp_path):
    for revision, factor in (("main", 1), ("step512", 2)):
        (tmp_path / revision).mkdir()
        written(tmp_path / revision / "m.gguf", data=W * factor)
        hub("org/repo", tmp_path / revision, revision=revision)
    assert torch.equal(zoo.embedding("hf:org/repo/m.gguf"), torch.from_numpy(W))
    assert torch.equal(zoo.embedding("hf:org/repo/m.gguf@step512"), torch.from_numpy(2 * W))
    assert torch.equal(zoo.embedding("hf:org/repo/m.gguf", step=512), torch.from_numpy(2 * W))
    with refused("hf:org/repo.*none.gguf"):
        zoo.embedding("hf:org/repo/none.gguf")


def test_without_the_package_a_gguf_file_is_refused_with_the_command_that_installs_it(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with refused(r"m\.gguf is a GGUF file.*pip install 'superposition-zoo\[gguf\]'"):
        zoo.embedding(tmp_path / "m.gguf")


@WITH_GGUF
def test_a_damaged_gguf_file_is_refused(tmp_path, refused):
    path, _ = written(tmp_path / "m.gguf")
    for content in (b"", b"junk", path.read_bytes()[:200]):
        (tmp_path / "bad.gguf").write_bytes(content)
        with refused(r"bad\.gguf is damaged"):
            zoo.embedding(tmp_path / "bad.gguf")


@pytest.mark.parametrize(("name", "kind"), [("m.gguf", "GGUF"), ("m.npz", r"a \.npz file")])
def test_a_file_that_is_no_network_says_that_its_embedding_can_be_studied(tmp_path, refused, name, kind):
    (tmp_path / name).touch()
    with refused(
        rf"{name} cannot be loaded as a network \({kind}\); its embedding can be studied: python -m zoo study"
    ):
        zoo.load(tmp_path / name)


def test_a_folder_of_an_unknown_architecture_tells_what_can_be_studied(tmp_path, refused):
    save_file({"model.lookup": torch.from_numpy(W), "scale": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own"}))
    with refused(r"type 'own': .*; its embedding can be studied: python -m zoo study embedding.*--tensor NAME"):
        zoo.load(tmp_path)
    with refused(r"choose one with --tensor: model\.lookup \[60, 512\]$"):
        zoo.embedding(tmp_path)
    assert torch.equal(Source.open(tmp_path, "model.lookup").embedding(), torch.from_numpy(W))


def test_of_a_model_in_several_files_all_matrices_are_named(tmp_path, refused):
    save_file({"rows": torch.ones(5, 3), "bias": torch.ones(3)}, tmp_path / "a.safetensors")
    save_file({"table": torch.ones(9, 3)}, tmp_path / "b.safetensors")
    index = {"weight_map": {"rows": "a.safetensors", "bias": "a.safetensors", "table": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with refused(r"choose one with --tensor: table \[9, 3\], rows \[5, 3\]$"):
        zoo.embedding(tmp_path)
    assert torch.equal(zoo.embedding(tmp_path, tensor="table"), torch.ones(9, 3))


def test_sources_with_another_tensor_are_other_sources(tmp_path):
    save_file({"wte.weight": torch.eye(4), "b": 2 * torch.eye(4)}, tmp_path / "m.safetensors")
    token, other = Source.open(tmp_path / "m.safetensors"), Source.open(tmp_path / "m.safetensors", "b")
    assert token != other
    assert token.fingerprint() != other.fingerprint()
    assert torch.equal(other.embedding(), 2 * torch.eye(4))


def test_tensors_of_other_shapes_are_refused(tmp_path, refused):
    tokens = [f"t{i}" for i in range(V)]
    np.save(tmp_path / "m.npy", np.ascontiguousarray(W.T[:40]))
    (tmp_path / "m.tokens.json").write_text(json.dumps(tokens))
    with refused(r"is \[40, 60\], and there are 60 tokens: it is transposed"):
        zoo.embedding(tmp_path / "m.npy")
    np.savez(tmp_path / "m.npz", W_E=W, bias=W[0])
    with refused(r"tensor bias of .* is torch\.float32 \[512\], not a matrix"):
        zoo.embedding(tmp_path / "m.npz", tensor="bias")
    with refused(r"has no tensor 'none'; it has W_E \[60, 512\]$"):
        zoo.embedding(tmp_path / "m.npz", tensor="none")


def int8(folder, **more):
    q = torch.from_numpy(np.random.default_rng(2).integers(-127, 128, (V, D), dtype=np.int8))
    save_file({"words.weight": q} | more, folder / "m.safetensors")
    return q, Source.open(folder / "m.safetensors", "words.weight")


@pytest.mark.parametrize("name", ["words.weight_scale", "words.scales", "weight_scales_of_words"])
@pytest.mark.parametrize("scale", [torch.tensor(0.25), torch.linspace(0.1, 1, V), torch.linspace(0.1, 1, V)[:, None]])
def test_int8_is_multiplied_by_its_scale(tmp_path, name, scale):
    q, source = int8(tmp_path, **{name: scale})
    found, rounding = source.rounded_embedding()
    factor = scale.reshape(-1, 1)
    assert torch.equal(found, q.float() * factor)
    assert rounding.kind == "int8"
    assert torch.allclose(rounding.squared_error, (factor.double() ** 2 * D / 12).flatten().expand(V))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "words.weight is int8 and has no scale"),
        ({"words.scale": torch.ones(7)}, "has no scale"),
        ({"a_scale": torch.ones(V), "b_scale": torch.ones(V)}, "has the scales a_scale, b_scale"),
        ({"words.scale": torch.ones(V), "words.zero_point": torch.zeros(V)}, "zero point, words.zero_point"),
        ({"words.scale": torch.ones(V, dtype=torch.int32)}, "a scale has a floating-point type"),
    ],
)
def test_int8_without_a_clear_scale_is_refused(tmp_path, refused, more, message):
    with refused(message):
        int8(tmp_path, **more)[1].embedding()


def test_what_sparse_coding_leaves_is_compared_with_the_rounding():
    assert told_of_rounding(None, Estimate(0.2, 0.1, 0.3), Estimate(-0.1, -0.2, -0.05)) == []
    rounding = {"kind": "Q4_1", "fvu": 0.08}
    [small] = told_of_rounding(rounding, Estimate(0.1, 0.09, 0.11), Estimate(-0.02, -0.03, -0.01))
    assert "an error of 0.08 of the variance" in small
    assert "1.25 times as large" in small
    assert "may be rounding" in small
    assert "difference from Gaussian rows, -0.020 [-0.030, -0.010], is smaller than the error of rounding" in small
    [large] = told_of_rounding(rounding, Estimate(0.4, 0.39, 0.41), Estimate(-0.1, -0.12, -0.09))
    assert "5 times as large" in large
    assert "may be" not in large
    [many] = told_of_rounding(rounding | {"fvu": 9.1e-05}, Estimate(0.493, 0.490, 0.495), Estimate(-0.1, -0.12, -0.09))
    assert "5,418 times as large" in many


def test_an_error_that_rounding_can_make_is_no_evidence_against_superposition():
    error, null = Estimate(0.1, 0.09, 0.11), Estimate(0.5, 0.49, 0.51)
    below = Estimate(-0.4, -0.42, -0.38)
    assert explained(error, null, None, 0.05, below, rounding=0.03) == "no"
    assert explained(error, null, None, 0.05, below, rounding=0.05) == "undecided"


def test_the_error_of_rounding_is_a_share_of_the_variance_of_the_rows_that_are_kept():
    rows = torch.tensor([[1.0, 0], [-1, 0], [9, 9]])
    rounding = Rounding.of_steps("x", torch.tensor([[1.2, 0], [0, 1.2], [50, 50]]))
    assert rounding.squared_error[:2].tolist() == pytest.approx([0.12, 0.12])
    assert rounding.fvu(rows, np.array([True, True, False])) == pytest.approx(0.24 / 2)


def test_the_report_of_a_study_compares_its_error_with_that_of_the_rounding(tmp_path):
    rows = np.random.default_rng(3).normal(size=(120, 8))
    scale = np.full(120, 0.5, np.float32)
    np.savez(tmp_path / "m.npz", words=np.round(rows / 0.5).astype(np.int8), words_scale=scale)
    settings = {"n_atoms": 16, "penalties": (0.3, 0.1), "dictionary_steps": 1, "seeds": 2, "at_l0": 2, "gauged": 0}
    told = answer(BasisPursuit((str(tmp_path / "m.npz"),), tensor="words", **settings), tmp_path)
    rounding = told.verdict.numbers["rounding"]
    variance = np.var(0.5 * np.round(rows / 0.5), axis=0).sum()
    assert rounding == {"kind": "int8", "fvu": pytest.approx(8 * 0.5**2 / 12 / variance, rel=1e-5)}
    error = told.verdict.numbers["error"]
    [text] = [table for table in told.sections[0].tables if isinstance(table, str) and "dequantised" in table]
    assert f"{error}, is {error.mean / rounding['fvu']:,.3g} times as large" in text


def test_the_rounding_is_that_of_the_rows_that_are_coded(tmp_path):
    rows = np.random.default_rng(3).normal(size=(120, 8))
    rows[60:] *= 10
    scale = np.where(np.arange(120) < 60, 0.5, 5).astype(np.float32)
    np.savez(tmp_path / "m.npz", words=np.round(rows / scale[:, None]).astype(np.int8), words_scale=scale)
    source = Source.open(str(tmp_path / "m.npz"), "words")
    some = Rows(source, None, some=20).do(Work({}, tmp_path))
    W = some["W_E"]
    steps = np.where(np.abs(W).max(1) > 6, 5, 0.5)
    assert 0 < (steps == 5).sum() < 20
    assert some["rounding"]["fvu"] == pytest.approx(8 / 12 * np.square(steps).mean() / W.var(0).sum(), rel=1e-5)
