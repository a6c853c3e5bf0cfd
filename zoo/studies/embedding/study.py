"""The parts of the study, one after the other; each keeps what it has finished."""

import hashlib
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from zoo import report, sources
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.rebuild import portable
from zoo.source import Source
from zoo.studies import basis_pursuit, frozen_embedding, row_reset, sparse_rows
from zoo.studies.embedding import atoms, controls, rows, structure
from zoo.studies.embedding.families_file import read_families
from zoo.studies.embedding.numbers import pursued_error
from zoo.studies.embedding.sections import write_up
from zoo.studies.matrices import matrices, planted_atoms
from zoo.studies.tasks import check_folder, do_all, write_json

DEFAULT = "gpt2-mini.learned"
ARMS = ("learned", "frozen Gaussian", "frozen norm-matched", "frozen covariance-matched", "frozen copied")
PENALTIES = (0.3, 0.2, 0.14, 0.1)
DICTIONARY_STEPS = 10
LEAST_ATOMS = 8
OF_THE_REPORT = ("margin", "tolerance", "alpha", "null_draws", "reset_rows", "families")  # settings that may change
BITS_MATRICES = ("embedding", "covariance-matched", "planted")


@dataclass(frozen=True)
class Settings:
    """What is studied, and how thoroughly.

    Args:
        sources: The embeddings of one or several runs of pretraining: what `zoo.embedding` takes, or a name with {step}
            in it where every step has a name of its own.
        steps: Of pretraining, ascending; all that the source holds by default.
        tokens: File with the rows' tokens, for a source that has none, see `rows.read_tokens`.
        train: Config of the runs that learned and frozen embeddings are compared by (A5). By default that of
            gpt2-mini.learned, if that is what is studied, and otherwise none: A5 is then not tested.
        training_steps: Optimizer steps of these runs.
        n_atoms: Atoms of a dictionary; by default 4 per dimension, and at most half as many as rows.
        frequency_power: Rows have weight p^power of their token's frequency p.
        seeds: Runs, dictionaries and autoencoders per arm.
        null_draws: Draws of the covariance-matched null model that are searched for circles and binding.
        reset_rows: Rows that are reset (A6).
        keep_untrained: Whether untrained rows are studied too.
        margin: Nats above which a frozen embedding is much worse.
        tolerance: FVU below which sparse coding leaves nothing much over.
        alpha: Chance of any false finding among the tests for structure.
        families: File with families of tokens in a known order, beside the zoo's, see `families_file.read_families`.
    """

    sources: tuple[str, ...] = (DEFAULT,)
    steps: tuple[int | None, ...] | None = None
    tokens: str | None = None
    train: str | None = None
    training_steps: int = 640
    n_atoms: int | None = None
    frequency_power: float = 0.0
    seeds: int = 3
    null_draws: int = 20
    reset_rows: int = 128
    keep_untrained: bool = False
    margin: float = 0.1
    tolerance: float = 0.05
    alpha: float = 0.05
    families: str | None = None


def run(out: Path, settings: Settings, command: str = "", jobs: int = 1) -> report.Report:
    """Do what is missing, then write `report.html`, `report.json` and `figures/` into the folder.

    Args:
        out: Folder of the study; finished parts in it are not made again.
        settings: See `Settings`.
        command: What was asked for, to be told in the report.
        jobs: Processes, of one thread each.

    Returns:
        The report.

    Raises:
        ZooError: If a setting is out of range, a source cannot be read, or the folder holds another study.
    """
    _check(settings, jobs)
    read_families(settings.families)
    steps = settings.steps or tuple(rows.steps_of(settings.sources[0]))
    if settings.train is None and settings.sources == (DEFAULT,):
        settings = replace(settings, train=DEFAULT)
    if settings.train and settings.train != DEFAULT and not expanded(settings.train).is_file():
        raise ZooError(f"--train {settings.train}: there is no such config")
    return _Study(out, settings, steps, command, jobs).run()


def _check(settings: Settings, jobs: int) -> None:
    least = {"seeds": 2, "null_draws": 5, "training_steps": 8, "reset_rows": 8}
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise ZooError(f"{name} is {getattr(settings, name)}; it must be at least {value}")
    if settings.n_atoms is not None and settings.n_atoms < LEAST_ATOMS:
        raise ZooError(f"n_atoms is {settings.n_atoms}; it must be at least {LEAST_ATOMS}")
    if jobs < 1:
        raise ZooError(f"jobs is {jobs}; it must be at least 1")
    if settings.steps and list(settings.steps) != sorted(set(settings.steps)):  # type: ignore[type-var]
        raise ZooError("steps must be ascending, each given once")
    if not 0 < settings.alpha < 1 or not 0 < settings.tolerance < 1 or settings.margin < 0:
        raise ZooError(
            f"alpha is {settings.alpha} and tolerance {settings.tolerance}, which must lie between 0 and 1; margin is "
            f"{settings.margin}, which must not be negative"
        )


class _Study:
    def __init__(self, out: Path, settings: Settings, steps: tuple[int | None, ...], command: str, jobs: int) -> None:
        self.out, self.settings, self.steps, self.jobs, self.command = out, settings, steps, jobs, command
        self.console = Console(stderr=True)
        self.costs_file = out / "costs.json"
        self.costs: dict[str, dict[str, float]] = (
            json.loads(self.costs_file.read_text("utf-8")) if self.costs_file.exists() else {}
        )

    def run(self) -> report.Report:
        settings = self.settings
        done: dict[str, Any] = {"settings": asdict(settings), "steps": list(self.steps), "command": self.command}
        parts: list[tuple[str, str, Callable[[], Any]]] = [
            ("rows", "rows that were trained", self._prepare),
            ("A1", "autoencoders on the rows", self._autoencoders),
            ("A2", "certified dictionaries of the rows, at every step", self._dictionaries),
            ("controls", "dictionaries of planted superpositions", self._controls),
            ("A4", "neighbours among atoms", self._atoms),
            ("A7", "bits of smaller dictionaries", self._bits),
            ("A8", "circles and binding, in the rows and in null models", self._structure),
            ("with_untrained", "the same with untrained rows kept", self._with_untrained),
            ("A5", "training with learned and with frozen rows", self._training),
            ("A6", "single rows reset", self._resets),
        ]
        self.done = done
        for number, (name, text, do) in enumerate(parts, 1):
            self.console.rule(f"{number} of {len(parts)}: {text}", align="left")
            start = time.perf_counter()
            done[name] = do()
            self._note_cost(name, time.perf_counter() - start)
        done["costs"] = self.costs
        written = write_up(self.out, done)
        report.write(written, self.out)
        return written

    def _note_cost(self, part: str, seconds: float) -> None:
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        before = self.costs.get(part, {"seconds": 0.0, "largest_process_mb": 0.0})
        largest = max(peak / 1e3, before["largest_process_mb"])
        self.costs[part] = {"seconds": before["seconds"] + seconds, "largest_process_mb": largest, "jobs": self.jobs}
        write_json(self.costs_file, self.costs)

    def _prepare(self) -> dict[str, Any]:
        s = self.settings
        prepared = rows.prepare(self.out, s.sources, self.steps, s.tokens, s.keep_untrained)
        if s.frequency_power and not prepared["counts_known"]:
            raise ZooError(f"how often the tokens of {s.sources[0]} occur is not known; leave --frequency-power out")
        V, D = prepared["n_rows"], prepared["d_model"]
        self.n_atoms = s.n_atoms or min(4 * D, V // 2)
        if self.n_atoms >= 0.9 * V:
            raise ZooError(f"n_atoms is {self.n_atoms}, for {V} rows of which a tenth is held out; use fewer atoms")
        kept = {k: v for k, v in json.loads(json.dumps(asdict(s))).items() if k not in OF_THE_REPORT}
        check_folder(self.out, kept | {"steps": list(self.steps), "train_sha256": self._config_hash()})
        self.gauged = 50 if D <= 128 else 4
        self.at_l0 = max(2, min(16, D // 8))
        self.last = prepared["patterns"][0].replace("{step}", str(self.steps[-1]))
        if self.n_atoms < D:
            self.console.print(
                f"note: {self.n_atoms} atoms do not span the {D} dimensions of the rows, so no dictionary has error 0 "
                "at any L0, and there are no positive controls; --n-atoms sets their number"
            )
        self.tokens = sources.token_strings(self.last)
        prepared["tokens"] = self.tokens
        return prepared | {"n_atoms": self.n_atoms, "at_l0": self.at_l0}

    def _config_hash(self) -> str | None:
        """Of the config that is trained by, if it is a file."""
        train = self.settings.train
        return hashlib.sha256(expanded(train).read_bytes()).hexdigest() if train and train != DEFAULT else None

    def _autoencoders(self) -> Any:
        if min(self.done["rows"]["d_model"], self.n_atoms) < max(sparse_rows.BASELINE_L0):
            return f"it turns on up to {max(sparse_rows.BASELINE_L0)} latents, more than there are dimensions or atoms"
        s = self.settings
        shared = (self.n_atoms, 1000, min(512, self.done["rows"]["n_rows"]), s.frequency_power, s.seeds, self.jobs)
        return sparse_rows.run(self.out / "A1", self.last, *shared, variants=("TopK",))

    def _dictionaries(self) -> Any:
        s = self.settings
        shared = (
            self.n_atoms,
            PENALTIES,
            DICTIONARY_STEPS,
            s.frequency_power,
            s.seeds,
            self.jobs,
            self.at_l0,
            self.gauged,
        )
        return basis_pursuit.run(self.out / "A2", self.done["rows"]["patterns"], self.steps, *shared)

    def _controls(self) -> Any:
        D, seeds = self.done["rows"]["d_model"], self.settings.seeds
        if not planted_atoms(self.n_atoms, D):
            return (
                f"No control is possible with {self.n_atoms} atoms in {D} dimensions: planted rows are superpositions "
                "only if they have more atoms than dimensions, and a dictionary finds these only if it has more still."
            )
        return controls.run(self.out / "controls", self._task("embedding", 0, self.n_atoms), seeds, self.jobs)

    def _task(self, matrix: str, seed: int, n_atoms: int, gauged: int = 0) -> basis_pursuit.Task:
        shared = (n_atoms, PENALTIES, DICTIONARY_STEPS, self.settings.frequency_power, self.at_l0, gauged)
        return basis_pursuit.Task(self.done["rows"]["patterns"][0], self.steps[-1], matrix, seed, seed, *shared)

    def _atoms(self) -> Any:
        if self.tokens is None:
            return "the tokens of the rows are not known; give --tokens"
        file = self.out / "A4.json"
        if not file.exists():
            tasks = [
                self._task(m, seed, self.n_atoms, self.gauged)
                for m in atoms.MATRICES
                for seed in range(self.settings.seeds)
            ]
            write_json(file, atoms.organisation(self.out / "A2", tasks, self.tokens))
        return json.loads(file.read_text("utf-8"))

    def _bits(self) -> Any:
        """Bits at three sizes of dictionary, a line per dictionary and penalty."""
        lines = [line | {"n_atoms": self.n_atoms} for line in self.done["A2"] if "fvu_at_bits" in line]
        lines = [line for line in lines if line["step"] == self.steps[-1] and line["source"] == self._pattern]
        for n in (n for n in (self.n_atoms // 4, self.n_atoms // 2) if n >= LEAST_ATOMS):
            folder = self.out / "A7" / f"{n}-atoms"
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            D = self.done["rows"]["d_model"]
            coded = [m for m in BITS_MATRICES if m in matrices(n, D)]
            tasks = [self._task(m, s, n) for m in coded for s in range(self.settings.seeds)]
            do_all(basis_pursuit.solve, [t for t in tasks if not t.file(folder).exists()], folder, self.jobs)
            lines += [line | {"n_atoms": n} for t in tasks for line in json.loads(t.file(folder).read_text("utf-8"))]
        return [line for line in lines if line["matrix"] in BITS_MATRICES]

    @property
    def _pattern(self) -> str:
        return str(self.done["rows"]["patterns"][0])

    def _structure(self) -> dict[str, Any]:
        (self.out / "structure").mkdir(exist_ok=True)
        draws = [structure.Draw(self.last, n, self.settings.families) for n in (None, *range(self.settings.null_draws))]
        do_all(structure.look, [d for d in draws if not d.done(self.out)], self.out, self.jobs)
        return structure.read(self.out, draws, self.settings.alpha)

    def _with_untrained(self) -> dict[str, Any] | None:
        """The error and what is found if rows that look untrained are kept; None if none was set aside."""
        patterns = self.done["rows"].get("patterns_all", self.done["rows"]["patterns"])
        if patterns == self.done["rows"]["patterns"]:
            return None
        folder, rows = self.out / "with-untrained", patterns[0].replace("{step}", str(self.steps[-1]))
        for part in ("runs", "structure"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        like = replace(self._task("embedding", 0, self.n_atoms), source=rows, step=None)
        tasks = [replace(like, seed=seed) for seed in range(self.settings.seeds)]
        do_all(basis_pursuit.solve, [t for t in tasks if not t.file(folder).exists()], folder, self.jobs)
        draw = structure.Draw(rows, None, self.settings.families)
        do_all(structure.look, [draw] * (not draw.done(folder)), folder, self.jobs)
        found = structure.read(folder, [draw], self.settings.alpha)["findings"]
        return {"errors": [pursued_error(t.file(folder)) for t in tasks], "findings": found}

    def _training(self) -> Any:
        s = self.settings
        if s.train is None:
            return "no training runs: give --train CONFIG"
        config = s.train
        if config == DEFAULT:
            config = str(self.out / "A5" / "config.yaml")
            Path(config).parent.mkdir(exist_ok=True)
            made_by = Source.open(DEFAULT).provenance()["config"]
            Path(config).write_text(yaml.safe_dump(portable(made_by), sort_keys=False), "utf-8")
        often = max(1, s.training_steps // 8)
        extra = ["--trainer.max_steps", str(s.training_steps), "--trainer.val_check_interval", str(often)]
        extra += ["--trainer.enable_progress_bar", "false"]
        arms = [(name, "untied") for name in ARMS]
        results = frozen_embedding.run(config, self.out / "A5", s.seeds, self.jobs, extra, arms)
        runs = {a: [frozen_embedding.Run(*a, seed) for seed in range(s.seeds)] for a in arms}
        curves = {a[0]: [r.curve(self.out / "A5").tolist() for r in of] for a, of in runs.items()}
        V, D = sources.embedding(runs[arms[0]][0].folder(self.out / "A5")).shape
        same = (self.done["rows"]["n_tokens"], self.done["rows"]["d_model"]) == (V, D)
        return {"arms": results["arms"], "curves": curves, "trained_shape": [V, D], "same_shape": same}

    def _resets(self) -> Any:
        try:
            net = sources.load(self.settings.sources[0])
        except ZooError as error:
            return f"no network to fine-tune: {error}"
        if type(net).__name__ != "GPT2":
            return f"{self.settings.sources[0]} is no GPT-2 that could be fine-tuned"
        if rows.steps_of(self.settings.sources[0])[-1] != self.steps[-1]:
            return "rows are reset in a network at its last step, and the study ends at another"
        try:
            n = self.settings.reset_rows
            return row_reset.run(self.out / "A6" / f"{n}-rows", self.settings.sources[0], rows=n, jobs=self.jobs)
        except ZooError as error:
            return str(error)
