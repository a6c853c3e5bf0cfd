"""The runner with an engine that does tasks in the test's own process."""

import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from small_study import environment, results, write_study

from zoo.__main__ import main
from zoo.report import Report, Section, Verdict, read
from zoo.running import processes, progress, runner
from zoo.running.doing import Failed, Lost, do
from zoo.running.folder import Cost, ResultsFolder
from zoo.running.progress import Progress, seconds_to_go, time_to_go
from zoo.running.runner import Run, costs
from zoo.study import NotTested, Study, Task, closure


@dataclass(frozen=True)
class Link(Task):
    """A link of a chain: one more than the link before."""

    chain: str
    n: int
    breaks: bool = False

    def needs(self):
        return [Link(self.chain, self.n - 1, self.breaks)] if self.n else []

    def do(self, work):
        if self.breaks and self.n == 1:
            raise RuntimeError("broken")
        return {"n": 1 + work[self.needs()[0]]["n"] if self.n else 0}

    def seconds(self):
        return 90.0


@dataclass(frozen=True)
class Chain(Study):
    """A chain."""

    chain: str
    breaks: bool = False

    def tasks(self):
        return [Link(self.chain, 3, self.breaks)]

    def report(self, results):
        n = results[self.tasks()[0]]["n"]
        return Report("", Verdict(f"{n}", ""), [Section(self.chain, "How long?", f"{n} links.")])


@dataclass(frozen=True)
class Chains(Study):
    """Several."""

    breaks: bool = False

    def parts(self):
        return {"a": Chain("a"), "b": Chain("b", self.breaks), "c": NotTested("There is no iron.")}

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]):
        told = {name: part.verdict.headline if isinstance(part, Report) else "-" for name, part in parts.items()}
        return Report("", Verdict(str(told), ""), self.sections(parts))


class Here:
    """Does one task at a time, and ends the run by Ctrl-C after so many."""

    at_once = 1

    def __init__(self, results, stop_after=99):
        self.results, self.left, self.done, self.pages = results, stop_after, [], []

    def start(self, tasks):
        self.pages.append((self.results.out / "report.html").exists())
        self.task = next(iter(tasks))
        return [self.task]

    def finished(self, timeout):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        outcome = do(self.task, self.results, self.results.work_folder(self.task), "cpu")
        self.done.append((self.task.chain, self.task.n))
        if isinstance(outcome, Failed):
            return [(self.task, outcome)]
        self.results.put(self.task, *outcome)
        return [(self.task, outcome[1])]

    def stop(self):
        pass


def run_here(out, study, chosen=None, **how):
    run = Run(study, out, chosen)
    run.results.make()
    engine = Here(run.results, **how)
    try:
        run.do(engine, Progress())
    finally:
        findings = {section["id"]: section["finding"] for section in read(out)["sections"]}
    return run, engine, findings


def test_parts_have_their_sections_and_a_page_from_the_first_complete_one_on(tmp_path):
    run, engine, findings = run_here(tmp_path, Chains())
    assert findings == {"a": "3 links.", "b": "3 links.", "c": "There is no iron."}
    assert engine.done == [(chain, n) for chain in "ab" for n in range(4)]
    assert engine.pages == [False] * 4 + [True] * 4
    assert run.written.verdict.headline == "{'a': '3', 'b': '3', 'c': '-'}"
    assert not run.failures


def test_a_part_that_fails_is_named_and_so_is_one_that_is_left_out(tmp_path):
    run, engine, findings = run_here(tmp_path, Chains(breaks=True))
    assert findings["a"] == "3 links."
    assert findings["b"].startswith("3 of 4 tasks failed, 1 are done. Link(chain='b', n=1, breaks=True): RuntimeError")
    assert "it needs Link(chain='b', n=1, breaks=True), which failed" in findings["b"]
    assert len(engine.done) == 6
    assert len(run.failures) == 3
    _, engine, findings = run_here(tmp_path, Chains(), ["b"])
    assert findings["a"] == "Left out by --parts."
    assert findings["b"] == "3 links."
    assert len(engine.done) == 4


def test_a_page_says_what_is_missing_when_a_run_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_here(tmp_path, Chains(), stop_after=6)
    findings = {section["id"]: section["finding"] for section in read(tmp_path)["sections"]}
    assert findings["a"] == "3 links."
    assert findings["b"] == "Not finished: 2 of 4 tasks are done. Run the same command again to continue."


def test_parts_that_do_not_exist_are_refused(tmp_path, refused):
    with refused("study test-runner has no part 'x'; its parts are a, b, c"):
        Run(Chains(), tmp_path, ["x"])


def test_parts_share_the_tasks_that_both_need(tmp_path):
    assert len(closure([Link("a", 3), Link("a", 2), Link("b", 0)])) == 5
    assert Link("a", 3).key == Link("a", 3).key != Link("a", 3, True).key


def test_a_line_with_the_time_to_go_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    run_here(tmp_path, Chains())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0 of 8 tasks are done; about 12 minutes left"
    assert re.fullmatch(r"4 of 8 tasks are done; about 0 seconds left", lines[4])
    monkeypatch.setattr(progress, "EVERY", 60.0)
    run_here(tmp_path / "other", Chains())
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_time_to_go_is_that_of_finished_tasks_of_a_class_or_what_tasks_say_shared_by_those_done_at_once():
    missing = [Link("a", n) for n in range(4)]
    assert seconds_to_go(missing, {}) == 4 * 90
    assert seconds_to_go(missing, {"Link": [10.0, 30.0], "Other": [1000.0]}) == 4 * 20
    assert time_to_go(missing, {}, 1) == "about 6 minutes left"
    assert time_to_go(missing, {}, 3) == "about 2 minutes left"
    assert time_to_go(missing, {}, 6) == "about 60 seconds left"
    assert seconds_to_go([], {}) == 0


def test_the_time_to_go_is_not_made_up_where_one_task_does_not_say():
    class Unknown(Link):
        def seconds(self):
            return None

    assert seconds_to_go([Link("a", 0), Unknown("a", 1)], {}) is None
    assert "not known" in time_to_go([Unknown("a", 0)], {}, 1)
    assert seconds_to_go([Unknown("a", 0)], {"Unknown": [3.0]}) == 3


def test_costs_are_added_up_by_class_with_the_largest_memory_and_every_machine(tmp_path):
    @dataclass(frozen=True)
    class Other(Link):
        pass

    folder = ResultsFolder(tmp_path)
    folder.make()
    assert costs([Link("a", 0)], folder) is None
    done = {
        Link("a", 0): Cost(60.0, 100.4, "cpu", "here"),
        Link("a", 1): Cost(120.0, 300.4, "gpu", "there"),
        Link("a", 2): Cost(30.0, 200.0, "cpu", "here"),
        Other("a", 0): Cost(90.0, math.nan, "cpu", "here"),
    }
    for task, cost in done.items():
        folder.put(task, {}, cost)
    table = costs([*done, Link("missing", 0)], folder)
    assert table.rows == [
        ["Link", 3, 3.5, 300, "cpu (here); gpu (there)"],
        ["Other", 1, 1.5, None, "cpu (here)"],
        ["all", 4, 5.0, None, ""],
    ]


class Losing(Here):
    """Loses the process of one task, so often."""

    def __init__(self, results, times):
        super().__init__(results)
        self.times, self.lost = times, 0

    def finished(self, timeout):
        if self.lost < self.times and (self.task.chain, self.task.n) == ("a", 2):
            self.lost += 1
            return [(self.task, Lost())]
        return super().finished(timeout)


@pytest.mark.parametrize(("times", "done"), [(3, True), (4, False)])
def test_a_task_whose_process_ends_is_done_again_three_times_at_most(tmp_path, times, done):
    run = Run(Chains(), tmp_path)
    run.results.make()
    run.do(Losing(run.results, times), Progress())
    findings = {section["id"]: section["finding"] for section in read(tmp_path)["sections"]}
    assert findings["b"] == "3 links."
    assert (findings["a"] == "3 links.") == done
    if not done:
        assert findings["a"].startswith("2 of 4 tasks failed, 2 are done.")
        assert "its process died 4 times" in findings["a"]


def test_results_come_back_as_they_were(tmp_path):
    import numpy as np

    folder = ResultsFolder(tmp_path)
    folder.make()
    task = Link("a", 0)
    result = {
        "file": np.arange(3),
        "a/b": np.float32(0.1),
        "nan": float("nan"),
        3: (1, 2.5, None),
        "t": np.array([True]),
    }
    cost = do(task, folder, tmp_path, "cpu")[1]
    folder.put(task, result, cost)
    found = ResultsFolder(tmp_path)[task]
    assert found["file"].tolist() == [0, 1, 2]
    assert found["t"].dtype == bool
    assert (found["a/b"], found["3"], str(found["nan"])) == (float(np.float32(0.1)), [1, 2.5, None], "nan")
    assert ResultsFolder(tmp_path).cost(task) == cost
    with pytest.raises(TypeError, match="holds Python objects"):
        folder.put(task, {"x": np.array([{}])}, cost)


def test_every_process_has_a_gpu_of_its_own(tmp_path, monkeypatch, refused):
    text = (
        write_study(tmp_path).read_text().replace("work.device}", 'work.device + os.environ["CUDA_VISIBLE_DEVICES"]}')
    )
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for name, value in environment(tmp_path, CUDA_VISIBLE_DEVICES="").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_gpus", lambda: ["5", "7"])
    assert main(["study", "mine.py", "--out", "out", "--jobs", "3", "--device", "cuda"]) == 0
    found = [r["result"]["device"] for name, r in results(tmp_path / "out").items() if name.startswith("Sum")]
    assert set(found) <= {"cuda5", "cuda7"}
    assert len(found) == 6
    sys.modules.pop("mine", None)


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path, refused):
    with refused("device is 'cuda', but torch finds no GPU on this machine"):
        processes.Processes(1, ResultsFolder(tmp_path), "cuda", None)


def test_a_report_that_reads_what_no_task_makes_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Chain, "report", lambda self, results: results[Link("other", 0)])
    run, _, findings = run_here(tmp_path, Chains())
    assert "is not one of the study's tasks" in findings["a"]
    assert run.failures
    assert runner.TIMES_AGAIN == 3
