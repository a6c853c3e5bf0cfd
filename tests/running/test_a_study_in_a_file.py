import json
import os
import random
import re
import signal
import sys

import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from small_study import begun, environment, results, start, study, times, wait_for, write_study

from zoo import estimates
from zoo.__main__ import main
from zoo.report import read
from zoo.report.colors import PALETTE

PAUSE = "0.15"  # seconds that a task takes where a run is ended in its middle


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run with one process that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_study(folder)
    printed, _ = study(folder, "mine.py", "--out", "out")
    assert printed.startswith("From 5.22 [3.58, 6.86] to 11.13 [8.05, 14.20].\nThree draws.\n")
    assert len(begun(folder)) == 12
    return folder / "out"


@pytest.fixture
def folder(tmp_path):
    """A folder with the study's file."""
    write_study(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """A function that runs the study within this process, and returns what it printed."""
    monkeypatch.chdir(folder)
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)

    def run(*words, code=0):
        sys.modules.pop("mine", None)
        capsys.readouterr()
        assert main(["study", *map(str, words)]) == code
        return capsys.readouterr()

    yield run
    sys.modules.pop("mine", None)


def test_it_ends_in_a_page_its_data_a_table_and_pictures(undisturbed):
    report = read(undisturbed)
    assert report["title"] == "Do sums of drawn numbers grow with how many there are?"
    assert report["study"] == "mine"
    assert report["settings"] == {"sizes": [10, 20], "seeds": 3, "trouble": ""}
    assert report["command"].endswith("study ./mine.py --out DIR")
    assert [row[:2] for row in report["costs"]["rows"]] == [["Draw", 6], ["Sum", 6], ["all", 12]]
    assert "cores" in report["costs"]["rows"][0][-1]
    assert "5.220 [3.584, 6.856]" in (undisturbed / "table.md").read_text()
    (chart,) = report["sections"][0]["charts"]
    (sums,) = chart["series"]
    assert (chart["title"], chart["x_label"], chart["y_label"]) == ("Sums", "numbers", "sum")
    assert (sums["name"], sums["x"]) == ("sums", [10, 20])
    drawn = [[random.Random(seed).random for seed in range(3)] for _ in range(2)]
    expected = [
        estimates.mean([sum(draw() for _ in range(n)) for draw in own]) for n, own in zip((10, 20), drawn, strict=True)
    ]
    assert list(zip(sums["low"], sums["y"], sums["high"], strict=True)) == [
        pytest.approx((one.low, one.mean, one.high)) for one in expected
    ]
    picture = Image.open(undisturbed / "figures" / "sums.png")
    assert picture.size == (960, 660)
    assert to_rgb(PALETTE[0]) in {tuple(c / 255 for c in color) for _, color in picture.convert("RGB").getcolors(10**6)}
    assert "From 5.22" in re.sub("<[^>]+>", "", (undisturbed / "report.html").read_text("utf-8"))
    assert not list(undisturbed.rglob("*.partial*"))


@pytest.mark.parametrize("how", ["killed", "interrupted", "told to end"])
def test_a_run_that_was_ended_is_gone_on_with(how, folder, undisturbed, run):
    process = start(folder, "mine.py", "--out", "out", "--jobs", 2, MINE_PAUSE=PAUSE)
    wait_for(lambda: (folder / "out").is_dir() and len(times(folder / "out")) >= 3)
    if how == "killed":
        os.killpg(process.pid, signal.SIGKILL)
    elif how == "interrupted":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    _, err = process.communicate(timeout=30)
    before, names = times(folder / "out"), begun(folder)
    assert 3 <= len(before) < 12
    if how == "killed":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, err
        assert "report.html lists what is missing; run the same command again to continue" in err
        told = f"Not finished: {len(before)} of 12 tasks are done."
        assert told in (folder / "out" / "report.html").read_text("utf-8")
        assert not read(folder / "out")["sections"][0]["tested"]
    run("mine.py", "--out", "out", "--jobs", 2)
    assert results(folder / "out") == results(undisturbed)
    assert before.items() <= times(folder / "out").items()
    assert len(begun(folder)) - len(names) == 12 - len(before)


def test_what_a_changed_setting_does_not_touch_is_not_done_again_nor_what_was_moved(folder, undisturbed, run):
    run("mine.py", "--out", "out", "--jobs", 2)
    assert results(folder / "out") == results(undisturbed)
    before = times(folder / "out")
    (folder / "out").rename(folder / "moved")
    run("mine.py", "--out", "moved", "--seeds", 3, "--sizes", "10,20,30")
    after = times(folder / "moved")
    assert before.items() <= after.items()
    assert len(after) == 18 == len(begun(folder))
    assert read(folder / "moved")["command"].endswith("--sizes 10 20 30 --out DIR")
    run("mine.py", "--out", "moved", "--sizes", 10, 20, 30)
    assert len(begun(folder)) == 18


@pytest.mark.parametrize(
    ("trouble", "why", "tries"),
    [
        ("dies", "its process died 4 times before the task was done", 4),
        ("breaks", "RuntimeError: two lines", 1),
        ("told", "there is no such thing", 1),
        ("exits", "SystemExit: 3", 1),
    ],
)
def test_a_task_that_fails_is_named_and_the_others_are_done(trouble, why, tries, folder, undisturbed, run):
    printed, err = run("mine.py", "--out", "out", "--trouble", trouble, "--jobs", 2, code=1)
    assert "2 tasks failed, see the report" in printed
    (section,) = read(folder / "out")["sections"]
    assert "2 of 12 tasks failed, 10 are done." in section["finding"]
    first = f"Draw(n=10, seed=0, trouble='{trouble}')"
    assert f"{first}: {why};" in section["finding"]
    assert f"it needs {first}, which failed" in section["finding"]
    assert f"failed: {first}: {why}\n" in err
    assert len(results(folder / "out")) == 15
    assert len(begun(folder)) == 10 + tries
    if trouble == "dies":
        assert not (folder / "out" / "failures").exists()
    else:
        (file,) = (folder / "out" / "failures").iterdir()
        assert "Traceback" in file.read_text("utf-8")


def test_a_page_that_fails_keeps_the_results(folder, run):
    text = (folder / "mine.py").read_text().replace("finding = ", "finding = 1 / 0 or ")
    (folder / "mine.py").write_text(text)
    printed, _ = run("mine.py", "--out", "out", "--sizes", "10", code=1)
    assert "All results exist, but making the report failed: ZeroDivisionError: division by zero." in printed
    assert len(times(folder / "out")) == 6
    (file,) = (folder / "out" / "failures").iterdir()
    assert "Traceback" in file.read_text("utf-8")


@pytest.mark.parametrize(("ending", "content"), [("json", "{"), ("json", "{}"), ("npz", "PK"), ("npz", None)])
def test_a_damaged_result_is_named_in_one_line(ending, content, folder, run):
    run("mine.py", "--out", "out", "--sizes", "10", "--seeds", 2)
    kind = "Draw" if ending == "npz" else "Sum"
    file = sorted((folder / "out" / "results").glob(f"{kind}*.{ending}"))[0]
    file.write_text(content) if content is not None else file.unlink()
    if ending == "json":
        _, err = run("mine.py", "--out", "out", "--sizes", "10", "--seeds", 2, code=2)
        assert err == f"error: out/results/{file.name} is damaged; delete it, and the task is done again\n"
    else:
        [path.unlink() for path in (folder / "out" / "results").glob("Sum*")]
        printed, _ = run("mine.py", "--out", "out", "--sizes", "10", "--seeds", 2, code=1)
        assert f"{file.name} is damaged; delete it and {file.stem}.json, and the task is done again" in printed


def test_a_plan_says_what_is_to_be_done_and_makes_nothing(folder, undisturbed, run):
    def plan(*words):
        printed, _ = run("mine.py", *words, "--plan")
        return [(kind, int(to_do), int(done)) for kind, to_do, done in re.findall(r"(\w+) +│ (\d+) +│ (\d+)", printed)]

    assert plan("--out", "out") == [("Draw", 6, 0), ("Sum", 6, 0)]
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == ["mine.py"]
    before = sorted(undisturbed.rglob("*"))
    assert plan("--out", undisturbed, "--sizes", "10,30") == [("Draw", 3, 3), ("Sum", 3, 3)]
    assert sorted(undisturbed.rglob("*")) == before


def test_one_study_at_a_time_in_a_folder(folder, run):
    process = start(folder, "mine.py", "--out", "out", MINE_PAUSE="20")
    wait_for(lambda: begun(folder))
    _, err = run("mine.py", "--out", "out", code=2)
    assert err == "error: a study is running in out; wait until it ends, or choose another --out\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_processes_end_with_the_one_that_started_them(folder):
    process = start(folder, "mine.py", "--out", "out", "--jobs", 2, MINE_PAUSE="50")
    wait_for(lambda: len(begun(folder)) == 2)
    pids = [int(line.split()[1]) for line in (folder / "begun.txt").read_text().splitlines()]
    process.kill()
    process.communicate(timeout=20)  # when all have closed their ends of the pipes
    for pid in pids:
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}/stat"), seconds=10)


def test_torch_and_others_are_not_imported_for_tasks_without_them(folder, run):
    text = (folder / "mine.py").read_text()
    slow = "    assert not {'torch', 'lightning', 'matplotlib', 'scipy'} & set(__import__('sys').modules)\n"
    (folder / "mine.py").write_text(text.replace("    with open", f"{slow}    with open"))
    run("mine.py", "--out", "out", "--sizes", "10", "--seeds", 2)


def test_a_folder_of_an_older_zoo_is_refused_by_name(folder, run):
    (folder / "old" / "runs").mkdir(parents=True)
    (folder / "old" / "settings.json").write_text("{}")
    for more in ((), ("--plan",)):
        _, err = run("mine.py", "--out", "old", *more, code=2)
        assert err == (
            "error: old holds a study of an older version of the zoo, or other runs, and cannot be continued; "
            "choose another --out\n"
        )
    assert sorted(path.name for path in (folder / "old").iterdir()) == ["runs", "settings.json"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py", "x = 1", "defines 0 studies"),
        ("json.py", "x = 1", "needs another name"),
        ("bad-name.py", "x = 1", "needs another name"),
        ("broken_study.py", "x = 1 / 0", "cannot be imported: ZeroDivisionError"),
        ("absent.py", None, "there is no file"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_line(name, text, message, folder, run):
    if text is not None:
        (folder / name).write_text(text)
    _, err = run(f"./{name}", "--out", "out", code=2)
    assert message in err
    assert err.count("\n") == 1
    sys.modules.pop("none", None)


def test_a_result_says_what_task_it_is_of(undisturbed):
    file = sorted((undisturbed / "results").glob("Sum*.json"))[0]
    assert json.loads(file.read_text())["task"].startswith("Sum(draw=Draw(n=")
