"""Controls through the whole study: matrices of which it is known what they hold."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from doing_studies import answer

from zoo.analysis import dictionaries, structure
from zoo.analysis.multiple_tests import rate_limit
from zoo.analysis.token_families import CYCLIC
from zoo.estimates import Estimate
from zoo.matrices import NORM_MATCHED, matrices
from zoo.near_neighbours import nearest
from zoo.null_models import planted
from zoo.shared_tasks import pursuit
from zoo.shared_tasks.rows import Rows, UntrainedRows, read_tokens
from zoo.source import Source
from zoo.studies import basis_pursuit, description_length, embedding, recognised_superpositions
from zoo.studies.embedding import Embedding, Measured, decide, explained, needed
from zoo.study import Work, all_tasks

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
    monkeypatch.setattr(pursuit, "PENALTIES", (0.3, 0.1))
    monkeypatch.setattr(pursuit, "DICTIONARY_STEPS", 12)
    monkeypatch.setattr(description_length, "LEAST_ATOMS", 12)
    monkeypatch.setattr(basis_pursuit, "matrices", without_costly_ones)
    monkeypatch.setattr(recognised_superpositions, "SPARSITIES", (2,))
    monkeypatch.setattr(recognised_superpositions, "NOISES", (0.0,))
    monkeypatch.setattr(dictionaries, "gauge", lambda *_: {})
    monkeypatch.setattr(dictionaries, "BASELINE_L0", (1, 4))
    monkeypatch.setitem(sys.modules, "umap", None)  # as where it is not installed

    def run(rows, named=True, **settings):
        np.save(tmp_path / "W.npy", rows.numpy())
        if named:
            (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS))
        given = {"source": (str(tmp_path / "W.npy"),), "n_atoms": 36, "seeds": 2, "null_draws": 5}
        return answer(Embedding(**given | settings), tmp_path)

    return run


def found(written, kind):
    return {line["name"]: line for line in written.verdict.numbers["findings"] if line["kind"] == kind}


def test_superposition_is_explained_untrained_rows_aside_and_holds_nothing_else(small_study, monkeypatch):
    monkeypatch.setattr(recognised_superpositions, "SPARSITIES", (2, 4))
    monkeypatch.setattr(recognised_superpositions, "NOISES", (0.0, 0.2))
    rows = superposition()
    rows[-40:] = rows[-40] * 0.5 + 0.01 * gaussian()[-40:]  # untrained
    written = small_study(rows)
    assert "40 rows look untrained; they were excluded" in written.subject
    assert written.verdict.headline.startswith("The embedding is explained by superposition")
    numbers = written.verdict.numbers
    assert (numbers["case"], numbers["needed"]) == ("explained by superposition", "not tested")
    assert numbers["error"].high < 0.05 < numbers["null_error"].low
    assert numbers["controls"].startswith("Planted rows that are sums of up to 2 atoms without noise would have been")
    assert numbers["findings"] == []
    assert "What changes if rows that look untrained are kept? | the held-out FVU" in written.verdict.evidence
    assert "| question | result, with 95 % interval | it is a yes if | answer |" in written.verdict.evidence
    assert written.verdict.recognised.startswith(numbers["controls"])
    drawn = {series.name: series for series in written.verdict.chart.series}
    assert drawn["this embedding"].y == [numbers["error"].mean]
    assert drawn["planted superpositions, no noise"].x == ["2", "4"]
    sections = {section.id: section for section in written.sections}
    ratio = sections["description-length"].numbers["ratio"][36]
    assert ratio["embedding"].high < 0.8 * ratio["covariance-matched"].low  # bits
    untested = {name for name, section in sections.items() if not section.tested}
    assert untested == {"sparse-rows", "pretraining", "frozen-embedding", "row-reset"}
    kept = sections["untrained-rows"].numbers
    assert (kept["n_rows"], sum(map(len, kept["aside"].values()))) == (len(TOKENS) - 40, 40)


def test_planted_circles_and_binding_are_found_with_their_families_and_rank(small_study):
    written = small_study(with_circles_and_binding())
    assert set(found(written, "circles")) == {"weekdays", "months"}
    assert set(found(written, "binding")) == {"-s"}
    assert found(written, "binding")["-s"]["rank"] == RANK
    assert "tokens related by a matrix (-s); tokens on a circle (weekdays and months)" in written.verdict.headline
    sections = {section.id: section for section in written.sections}
    assert sections["circles"].finding.startswith("On a circle: weekdays, months.")
    assert "-s (rank 2)" in sections["binding"].finding
    assert sections["circles"].numbers["families"]["weekdays"]["share"] > 0.7


def test_a_quick_study_says_what_it_left_out_and_searches_all_rows_for_structure(small_study, monkeypatch):
    monkeypatch.setattr(embedding, "QUICK_ROWS", 400)
    monkeypatch.setattr(embedding, "QUICK_ROWS_PER_DIMENSION", 1)
    written = small_study(with_circles_and_binding(), quick=True, null_draws=None)
    assert "Only 400 rows are coded sparsely: evenly spaced in the order of frequency" in written.subject
    assert {line["name"] for line in written.verdict.numbers["findings"]} >= {"weekdays", "months"}
    sections = {section.id: section for section in written.sections}
    left_out = {name for name, section in sections.items() if section.finding == "It is left out by --quick."}
    assert left_out == {"sparse-rows", "frozen-embedding", "row-reset", "description-length"}
    lines = [line for line in sections["basis-pursuit"].numbers["lines"] if "coded" in line]
    assert {line["coded"] for line in lines} == {400}
    assert {line["uncertified"] for line in lines} == {0}
    assert {line["seed"] for line in lines} == {0, 1}
    assert len(written.verdict.numbers["false_findings"]) == 5


def test_gaussian_rows_are_not_explained_and_hold_nothing(small_study):
    written = small_study(gaussian())
    assert written.verdict.numbers["case"] == "not explained by sparse coding"
    assert written.verdict.numbers["findings"] == []
    difference = written.verdict.numbers["difference"]
    assert difference.low - 0.02 < 0 < difference.high + 0.02  # no nearer to sparse than a Gaussian


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
        pytest.param(noisy(0.3), {"not explained by sparse coding"}, None, id="much noise"),
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
        assert (numbers["difference"].high < 0) == less_than_gaussian
    bits = {s.id: s for s in written.sections}["description-length"].numbers["told"]
    assert bits == description_length.TOLD["undecided"] or less_than_gaussian is not False


def test_fewer_atoms_than_dimensions_are_pointed_out_and_what_is_missing_says_why(small_study, tmp_path):
    written = small_study(superposition(), n_atoms=12)
    (note,) = Embedding((str(tmp_path / "W.npy"),), n_atoms=12).notes()
    assert note.startswith("12 atoms do not span the 24 dimensions")
    sections = {section.id: section for section in written.sections}
    assert not sections["recognised-superpositions"].tested
    assert "No control is possible with 12 atoms in 24 dimensions" in sections["recognised-superpositions"].finding
    assert "No control is possible" in written.verdict.recognised
    table, *told = sections["basis-pursuit"].tables
    assert "12 atoms do not span 24 dimensions: the gauge norm at error 0 does not exist" in told[0]
    row = next(row for row in table.rows if row[0] == "held-out FVU, debiased")
    assert all(math.isfinite(cell.mean) for cell in row[1:])
    assert "nan" not in table.markdown()
    assert "planted" not in table.columns


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


def test_the_error_over_pretraining_of_rows_without_tokens(small_study, tmp_path):
    g = torch.Generator().manual_seed(0)
    noise, learned = torch.randn(len(TOKENS), D, generator=g), superposition()
    steps = (0, 1, 8, 64)
    for step in steps:
        np.save(tmp_path / f"{step}.npy", (learned + noise * 1.5 / (1 + step)).numpy() if step else noise.numpy())
    written = small_study(learned, source=(str(tmp_path / "{step}.npy"),), steps=steps)
    sections = {section.id: section for section in written.sections}
    assert not sections["atom-neighbours"].tested
    assert not sections["binding"].tested
    assert "tokens of the rows are not known" in sections["binding"].finding
    assert "sparse-rows, atom-neighbours, row-reset and binding (the reasons are below)" in written.verdict.not_tested
    pretraining = sections["pretraining"]
    errors = [error.mean for error in pretraining.numbers["embedding"]]
    assert errors[0] > 0.15 > 0.05 > errors[-1]
    assert abs(pretraining.numbers["difference"][0].mean) < 0.05  # an untrained matrix is a Gaussian
    assert pretraining.numbers["limit"] is None  # 3 steps after the first are too few
    assert written.verdict.chart is pretraining.charts[0]
    assert "verdict" in [chart.name for chart in sections["basis-pursuit"].charts]
    lines = written.verdict.evidence.splitlines()
    (line,) = [line for line in lines if "Does the error of sparse coding fall over pretraining?" in line]
    assert f"it changes by {pretraining.numbers['change']}, and by {pretraining.numbers['null_change']} for" in line


def test_what_a_changed_setting_does_not_touch_is_the_same_task(small_study, tmp_path):
    np.save(tmp_path / "W.npy", superposition().numpy())
    (tmp_path / "W.tokens.json").write_text(json.dumps(TOKENS))

    def keys(**settings):
        given = {"source": (str(tmp_path / "W.npy"),), "n_atoms": 36, "seeds": 2, "null_draws": 5}
        return {task.key for task in all_tasks(Embedding(**given | settings))}

    before = keys()
    assert keys(tolerance=0.9, margin=0.5) == before
    assert before < keys(seeds=3)
    assert before < keys(null_draws=6)
    np.save(tmp_path / "other.npy", superposition().numpy())
    (tmp_path / "other.tokens.json").write_text(json.dumps(TOKENS))
    assert keys(source=(str(tmp_path / "other.npy"),)) == before  # what a file holds counts, not where it lies
    np.save(tmp_path / "another.npy", superposition(2).numpy())
    assert not keys(source=(str(tmp_path / "another.npy"),)) & before


def test_several_runs_of_pretraining_are_the_units_of_the_intervals(small_study, tmp_path):
    np.save(tmp_path / "other.npy", superposition(2).numpy())
    source = (str(tmp_path / "W.npy"), str(tmp_path / "other.npy"))
    written = small_study(superposition(), source=source)
    assert "2 runs of pretraining, of 2 seeds each" in written.verdict.certainty
    assert written.verdict.numbers["error"].mean < 0.05 < written.verdict.numbers["null_error"].mean


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
    assert read_tokens(str(tmp_path / name)) == ["a", " b", " c"]


@pytest.mark.slow
def test_a_map_by_umap_keeps_neighbours_and_takes_opposite_atoms_for_one():
    pytest.importorskip("umap")
    from zoo.analysis.atom_kinds import map_of

    g = torch.Generator().manual_seed(0)
    kind = torch.arange(120) % 4
    directions = 3 * torch.nn.functional.normalize(torch.randn(4, 16, generator=g))[kind]
    directions += 0.3 * torch.randn(120, 16, generator=g)
    drawn = map_of(directions * torch.where(torch.rand(120, 1, generator=g) < 0.5, 1.0, -1.0))
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
    source = Source.open("hf:org/neox")
    untrained = UntrainedRows((source,), 512)
    found = {untrained: untrained.do(Work({}, tmp_path))}
    assert (found[untrained]["n_tokens"], found[untrained]["d_model"]) == (50, D)
    W = Rows(source, 512, untrained).do(Work(found, tmp_path))["W_E"]
    assert np.array_equal(W, gaussian(512)[:50].numpy())
    with refused("has no step 8, neither as a folder nor as"):
        source.embedding(8)


def interval(low, high):
    return Estimate((low + high) / 2, low, high)


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
    assert ("ore seeds are needed" in sentence) == ("undecided" in (numbers["needed"], numbers["explained"])) or limit


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
        ({"null_draws": 2}, "null_draws is 2; it must be at least 5"),
        ({"tolerance": 0.0}, "tolerance is 0.0; it must be above 0 and below 1"),
        ({"train": "no.yaml"}, "config 'no.yaml' cannot be read"),
        ({"source": ("nothing",)}, "no checkpoint 'nothing'"),
        ({"tokens": "none.txt"}, "--tokens none.txt cannot be read"),
        ({"n_atoms": 4}, "n_atoms is 4; it must be at least 8"),
        ({"n_atoms": 700}, "use fewer atoms"),
        ({"max_rows": 100, "row_choice": "most frequent"}, "is not known; use --row-choice stratified"),
        ({"max_rows": 30}, "max_rows is 30; it must be at least 40"),
        ({"frequency_power": 1.0}, "how often the tokens of"),
        ({"steps": (64, 8)}, "steps must be ascending"),
    ],
)
def test_wrong_settings_are_told_in_one_line(small_study, refused, settings, words):
    with refused(words):
        small_study(superposition(), **settings)
