"""Controls through the whole study: matrices of which it is known what they hold."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from zoo import report
from zoo.analysis.multiple_tests import rate_limit
from zoo.analysis.token_families import CYCLIC
from zoo.near_neighbours import nearest
from zoo.null_models import planted
from zoo.studies import basis_pursuit, embedding
from zoo.studies.embedding import coding_sections, controls, rows, structure, study
from zoo.studies.embedding.verdict import Measured, decide, explained, needed
from zoo.studies.matrices import NORM_MATCHED, matrices

D, PAIRS = 24, 80
RANK = 2  # of the planted binding
WORDS = [a + b + c for a in "bdfgklmnprt" for b in "aeiou" for c in "bdgklmnp"][:PAIRS]
FAMILIES = [member for name in ("weekdays", "months", "compass", "hours") for member in CYCLIC[name].split()]
TOKENS = [*FAMILIES, *WORDS, *(word + "s" for word in WORDS), *(f"filler{i}" for i in range(500))]


def superposition(seed=1):
    """Rows that are sums of 2 of 36 atoms, a row per token."""
    return planted(len(TOKENS), D, 36, 2, generator=torch.Generator().manual_seed(seed))[0]


def with_circles_and_binding(seed=0):
    """The same with weekdays and months on circles, and plurals a matrix (a scalar and rank 2) times the word."""
    rows, g = superposition(seed), torch.Generator().manual_seed(100 + seed)
    for name in ("weekdays", "months"):
        members = [TOKENS.index(member) for member in CYCLIC[name].split()]
        angle = 2 * math.pi * torch.arange(len(members)) / len(members)
        plane = torch.linalg.qr(torch.randn(D, 2, generator=g)).Q.T
        rows[members] += 4 * torch.stack([angle.cos(), angle.sin()], 1) @ plane
    U, V = (torch.linalg.qr(torch.randn(D, RANK, generator=g)).Q for _ in range(2))
    singular, plural = ([TOKENS.index(w + s) for w in WORDS] for s in ("", "s"))
    rows[plural] = rows[singular] @ (0.5 * torch.eye(D) + 2 * U @ V.T) + 0.2 * torch.randn(PAIRS, D, generator=g)
    return rows


def gaussian(seed=0):
    return torch.randn(len(TOKENS), D, generator=torch.Generator().manual_seed(seed))


def without_costly_ones(n_atoms, d_model):
    """The matrices that are compared, but two that the tests of `basis_pursuit` have."""
    return tuple(m for m in matrices(n_atoms, d_model) if m not in (NORM_MATCHED, "permuted coordinates"))


@pytest.fixture
def small_study(tmp_path, monkeypatch):
    """The study of some rows, small and in this process."""
    for module in (study, basis_pursuit, controls):
        monkeypatch.setattr(module, "do_all", lambda do, tasks, out, jobs: [do(t, out) for t in tasks])
    monkeypatch.setattr(study, "PENALTIES", (0.3, 0.1))
    monkeypatch.setattr(study, "DICTIONARY_STEPS", 12)
    monkeypatch.setattr(study, "LEAST_ATOMS", 12)
    monkeypatch.setattr(basis_pursuit, "matrices", without_costly_ones)
    monkeypatch.setattr(controls, "SPARSITIES", (2,))
    monkeypatch.setattr(controls, "NOISES", (0.0,))
    monkeypatch.setattr(basis_pursuit, "_gauge", lambda *_: {})
    monkeypatch.setattr(basis_pursuit, "BASELINE_L0", (1, 4))
    monkeypatch.setitem(sys.modules, "umap", None)  # as where it is not installed

    def run(rows, named=True, **settings):
        np.save(tmp_path / "W.npy", rows.numpy())
        if named:
            (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS))
        given = {"sources": (str(tmp_path / "W.npy"),), "n_atoms": 36, "seeds": 2, "null_draws": 5}
        return embedding.run(tmp_path / "out", embedding.Settings(**given | settings), "python -m zoo study embedding")

    return run


def found(written, experiment):
    return {line["name"]: line for line in written.verdict.numbers["findings"] if line["experiment"] == experiment}


def test_superposition_is_explained_untrained_rows_aside_and_holds_nothing_else(small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(controls, "SPARSITIES", (2, 4))
    monkeypatch.setattr(controls, "NOISES", (0.0, 0.2))
    rows = superposition()
    rows[-40:] = rows[-40] * 0.5 + 0.01 * gaussian()[-40:]  # untrained
    written = small_study(rows)
    assert "40 rows look untrained; they were set aside" in written.subject
    kept = json.loads((tmp_path / "out" / "rows" / "run-0" / "last.tokens.json").read_text())
    assert kept == TOKENS[:-40]
    assert written.verdict.headline.startswith("Explained by superposition")
    numbers = written.verdict.numbers
    assert (numbers["case"], numbers["needed"]) == ("explained by superposition", "not tested")
    assert numbers["error"]["high"] < 0.05 < numbers["null_error"]["low"]
    assert numbers["controls"].startswith("Rows that are sums of up to 2 atoms without noise would have been called")
    assert numbers["findings"] == []
    ratio = {s.id: s for s in written.sections}["A7"].numbers["ratio"]["36"]
    assert ratio["embedding"]["high"] < 0.8 * ratio["covariance-matched"]["low"]  # bits
    tested = {section.id: section.tested for section in written.sections}
    assert tested == {f"A{i}": i in (2, 4, 7, 8, 9) for i in range(1, 10)} | {"rows": True, "controls": True}
    read = report.read(tmp_path / "out" / "report.json")
    assert read["verdict"]["headline"] == written.verdict.headline
    assert "Explained by superposition" in (tmp_path / "out" / "report.html").read_text()
    for section in read["sections"]:
        assert all(
            (tmp_path / "out" / "figures" / f"{chart['name']}.png").stat().st_size for chart in section["charts"]
        )


def test_planted_circles_and_binding_are_found_with_their_families_and_rank(small_study):
    written = small_study(with_circles_and_binding())
    assert set(found(written, "A9")) == {"weekdays", "months"}
    assert set(found(written, "A8")) == {"-s"}
    assert found(written, "A8")["-s"]["rank"] == RANK
    assert "a matrix relates the rows of -s; weekdays and months on a circle" in written.verdict.headline
    sections = {section.id: section for section in written.sections}
    assert sections["A9"].finding.startswith("Circles: weekdays, months.")
    assert "-s (rank 2)" in sections["A8"].finding
    assert sections["A9"].numbers["families"]["weekdays"]["share"] > 0.7


def test_gaussian_rows_are_not_explained_and_hold_nothing(small_study):
    written = small_study(gaussian())
    assert written.verdict.numbers["case"] == "not explained by sparse coding"
    assert written.verdict.numbers["findings"] == []
    difference = written.verdict.numbers["difference"]
    assert difference["low"] - 0.02 < 0 < difference["high"] + 0.02  # no nearer to sparse than a Gaussian


def steep(power, seed=0):
    """Gaussian rows with eigenvalues i^-power."""
    return gaussian(seed) * torch.arange(1.0, D + 1) ** (-power / 2)


def in_a_subspace(seed=0):
    """Gaussian rows in 6 of the dimensions, of which 3 atoms of 36 leave little over."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(len(TOKENS), 6, generator=g) @ torch.linalg.qr(torch.randn(D, 6, generator=g)).Q.T


def noisy(noise, sparsity=2, seed=1):
    """Sums of some of 36 atoms, with noise."""
    return planted(len(TOKENS), D, 36, sparsity, noise, torch.Generator().manual_seed(seed))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "cases", "less_than_gaussian"),
    [
        pytest.param(noisy(0.0, 1), {"explained by superposition"}, True, id="one atom a row"),
        pytest.param(noisy(0.02), {"explained by superposition", "undecided"}, True, id="little noise"),
        pytest.param(noisy(0.3), {"not explained by sparse coding"}, True, id="much noise"),
        pytest.param(noisy(0.0, 8), {"not explained by sparse coding"}, None, id="eight atoms a row"),
        pytest.param(steep(1), {"not explained by sparse coding"}, False, id="Gaussian, i^-1"),
        pytest.param(steep(2), {"not explained by sparse coding", "the error tells nothing"}, False, id="i^-2"),
        pytest.param(
            in_a_subspace(), {"not explained by sparse coding", "the error tells nothing"}, False, id="a subspace"
        ),
    ],
)
def test_matrices_that_are_known_get_their_verdict(small_study, rows, cases, less_than_gaussian):
    written = small_study(rows)
    numbers = written.verdict.numbers
    assert numbers["case"] in cases
    assert numbers["findings"] == []
    if less_than_gaussian is not None:
        assert (numbers["difference"]["high"] < 0) == less_than_gaussian
    bits = {s.id: s for s in written.sections}["A7"].numbers["told"]
    assert (bits == coding_sections.AS_A_GAUSSIAN) or less_than_gaussian is not False


def test_fewer_atoms_than_dimensions_are_pointed_out_and_what_is_missing_says_why(small_study, tmp_path, capsys):
    written = small_study(superposition(), n_atoms=12)
    assert "note: 12 atoms do not span the 24 dimensions" in " ".join(capsys.readouterr().err.split())
    sections = {section.id: section for section in written.sections}
    assert not sections["controls"].tested
    assert "No control is possible with 12 atoms in 24 dimensions" in sections["controls"].finding
    assert "No control is possible" in written.verdict.certainty
    table = (tmp_path / "out" / "A2" / "table.md").read_text()
    assert "12 atoms do not span 24 dimensions: the gauge norm at error 0 does not exist" in table
    row = next(line for line in table.splitlines() if line.startswith("| held-out FVU, debiased"))
    assert "| - |" not in row
    assert "nan" not in table
    assert "planted" not in {s.id: s for s in written.sections}["A2"].tables.split("12 atoms do not span")[0]


def test_of_100_null_models_hardly_any_has_a_finding():
    def spectrum(power, seed):
        return gaussian(seed) * torch.arange(1, D + 1).pow(-power / 2)

    matrices = [superposition(seed) for seed in range(25)]
    matrices += [spectrum(power, seed) for power in (0, 1, 2) for seed in range(25)]
    found = [structure.named(rows, TOKENS, nearest(rows, 5)[1]) for rows in matrices]
    false = structure.false_findings(found, 0.05)
    had = sum(count > 0 for count in false)
    assert {len(structure.tests(of)) for of in found} == {5}  # four families and a relation
    assert rate_limit(had, 100) < 0.1, structure.false_rate(false)


def test_the_error_over_pretraining_without_tokens_and_a_study_that_goes_on(
    small_study, tmp_path, monkeypatch, refused
):
    g = torch.Generator().manual_seed(0)
    noise, learned = torch.randn(len(TOKENS), D, generator=g), superposition()
    steps = (0, 1, 8, 64)
    for step in steps:  # without tokens
        np.save(tmp_path / f"{step}.npy", (learned + noise * 1.5 / (1 + step)).numpy() if step else noise.numpy())
    settings = {"sources": (str(tmp_path / "{step}.npy"),), "steps": steps}
    written = small_study(learned, **settings)
    sections = {section.id: section for section in written.sections}
    assert {name: section.tested for name, section in sections.items() if name in ("A4", "A8")} == {
        "A4": False,
        "A8": False,
    }
    assert "the tokens are not known" in sections["A8"].finding
    assert "circles and binding of known tokens" in written.verdict.certainty
    a3 = sections["A3"]
    errors = [interval["mean"] for interval in a3.numbers["embedding"]]
    assert errors[0] > 0.15 > 0.05 > errors[-1]
    assert abs(a3.numbers["difference"][0]["mean"]) < 0.05  # an untrained matrix is a Gaussian
    assert a3.numbers["limit"] is None  # 3 steps after the first are too few
    made = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("runs/*.json")}
    monkeypatch.setattr(structure, "look", None)  # which nothing calls again
    again = small_study(learned, **settings)
    assert again.verdict == written.verdict
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("runs/*.json")} == made
    with refused("a study with seeds 2, and seeds is 3 now"):
        small_study(learned, **settings, seeds=3)
    assert small_study(learned, **settings, tolerance=0.9).settings["tolerance"] == 0.9  # which changes no part
    np.save(tmp_path / "8.npy", noise.numpy())
    with refused("a study of other rows or tokens"):
        small_study(learned, **settings)


def test_several_runs_of_pretraining_are_the_units_of_the_intervals(small_study, tmp_path):
    np.save(tmp_path / "other.npy", superposition(2).numpy())
    sources = (str(tmp_path / "W.npy"), str(tmp_path / "other.npy"))
    written = small_study(superposition(), sources=sources)
    assert "2 runs of pretraining, of 2 seeds each" in written.verdict.certainty
    assert written.verdict.numbers["error"]["mean"] < 0.05 < written.verdict.numbers["null_error"]["mean"]


def test_few_or_flat_rows_are_refused(small_study, refused):
    with refused("30 rows in 24 dimensions; the study needs 40 in 4"):
        small_study(superposition()[:30], named=False)
    with refused("in 3 dimensions"):
        small_study(superposition()[:, :3], named=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps(["a", "\u0120b", "\u2581c"])),
        ("vocab.json", json.dumps({"\u0120b": 1, "a": 0, "\u2581c": 2})),
        ("lines.txt", "a\n b\n c\n"),
    ],
)
def test_vocabularies_are_read_in_every_layout(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert rows.read_tokens(str(tmp_path / name)) == ["a", " b", " c"]


@pytest.mark.slow
def test_a_map_by_umap_keeps_neighbours_and_takes_opposite_atoms_for_one():
    pytest.importorskip("umap")
    from zoo.studies.embedding.atoms import _map

    g = torch.Generator().manual_seed(0)
    kind = torch.arange(120) % 4
    directions = 3 * torch.nn.functional.normalize(torch.randn(4, 16, generator=g))[kind]
    directions += 0.3 * torch.randn(120, 16, generator=g)
    drawn = _map(directions * torch.where(torch.rand(120, 1, generator=g) < 0.5, 1.0, -1.0))
    assert drawn["method"] == "UMAP"
    places = torch.tensor(drawn["places"])
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).topk(5, largest=False).indices
    assert (kind[nearest] == kind.unsqueeze(1)).float().mean() > 0.95


@pytest.mark.parametrize("revision", ["step{}", "checkpoint-{}"])
def test_steps_that_are_revisions_on_the_hub_are_found(hub, tmp_path, refused, revision):
    from safetensors.torch import save_file

    for step in (0, 512):
        folder = tmp_path / str(step)
        folder.mkdir()
        save_file({"gpt_neox.embed_in.weight": gaussian(step)[:50]}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
        hub("org/neox", folder, revision=revision.format(step), absent=["tokenizer.json"])
    prepared = rows.prepare(tmp_path / "out", ["hf:org/neox"], [0, 512])
    assert (prepared["n_rows"], prepared["d_model"]) == (50, D)
    W = np.load(prepared["patterns"][0].replace("{step}", "512"))
    assert np.array_equal(W, gaussian(512)[:50].numpy())
    with refused("has no step 8, neither as a folder nor as"):
        rows.prepare(tmp_path / "other", ["hf:org/neox"], [0, 8])


def interval(low, high):
    return {"mean": (low + high) / 2, "low": low, "high": high}


@pytest.mark.parametrize(
    ("gap", "error", "limit", "case"),
    [
        (interval(0.2, 0.4), interval(0.2, 0.3), interval(0.1, 0.3), "structure outside superposition"),
        (interval(0.2, 0.4), interval(0.2, 0.3), interval(0.0, 0.04), "undecided"),  # a limit is not measured
        (interval(0.2, 0.4), interval(math.nan, 0.3), None, "not measured"),
        (interval(0.2, 0.4), interval(0.01, 0.02), None, "explained by superposition"),
        (interval(0.0, 0.05), interval(0.2, 0.3), None, "not sparse, and hardly needed"),
        (interval(0.0, 0.05), interval(0.01, 0.02), None, "explained, and hardly needed"),
        (interval(0.05, 0.2), interval(0.2, 0.3), None, "undecided"),
        (interval(0.2, 0.4), interval(0.2, 0.3), interval(0.0, 0.3), "undecided"),
        (None, interval(0.2, 0.3), None, "not explained by sparse coding"),
        (None, interval(0.03, 0.08), None, "undecided"),
    ],
)
def test_the_four_cases_and_what_is_left_undecided(gap, error, limit, case):
    null = interval(0.3, 0.4)
    measured = Measured(gap, error, null, interval(-0.2, -0.1), limit, at_l0=16, n_atoms=768)
    sentence, numbers = decide(measured, [], margin=0.1, tolerance=0.05)
    assert numbers["case"] == case
    assert (needed(gap, 0.1), explained(error, null, limit, 0.05)) == (numbers["needed"], numbers["explained"])
    assert ("not tested" in sentence) == (gap is None)
    assert ("more seeds would tell" in sentence) == ("undecided" in (numbers["needed"], numbers["explained"])) or limit


def test_an_error_that_gaussian_rows_have_too_explains_nothing():
    alike = interval(-0.01, 0.01)
    for error, null in ((interval(0.01, 0.02), interval(0.01, 0.03)), (interval(0.03, 0.08), interval(0.04, 0.07))):
        measured = Measured(None, error, null, alike, None, 16, 768)
        sentence, numbers = decide(measured, [], margin=0.1, tolerance=0.05)
        assert numbers["case"] == "the error tells nothing"
        assert "more seeds would not change that" in sentence


def test_a_no_that_more_pretraining_may_take_back_asks_for_checkpoints_and_not_for_seeds():
    measured = Measured(None, interval(0.2, 0.3), interval(0.4, 0.5), interval(-0.2, -0.1), interval(0.0, 0.3), 16, 768)
    sentence, numbers = decide(measured, [], margin=0.1, tolerance=0.05)
    assert numbers["case"] == "undecided"
    assert "later checkpoints are needed" in sentence
    assert "seeds" not in sentence


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"null_draws": 2}, "null_draws is 2"),
        ({"tolerance": 0.0}, "must lie between 0 and 1"),
        ({"train": "no.yaml"}, "--train no.yaml: there is no such config"),
        ({"sources": ("nothing",)}, "no checkpoint 'nothing'"),
        ({"tokens": "none.txt"}, "--tokens none.txt cannot be read"),
        ({"n_atoms": 4}, "n_atoms is 4; it must be at least 12"),
        ({"n_atoms": 700}, "use fewer atoms"),
        ({"frequency_power": 1.0}, "how often the tokens of"),
        ({"steps": (64, 8)}, "steps must be ascending"),
    ],
)
def test_wrong_settings_are_told_in_one_line(small_study, refused, settings, words):
    with refused(words):
        small_study(superposition(), **settings)
