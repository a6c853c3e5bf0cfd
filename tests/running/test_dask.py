import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from distributed import Client
from small_study import begun, environment, results, start, study, wait_for, write_study

from zoo import ZooError
from zoo.__main__ import main
from zoo.report import read
from zoo.running import cluster
from zoo.running.folder import ResultsFolder

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")


class Dask:
    """A scheduler and its workers, each a process of its own in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self._start("scheduler", "--port", "0", "--scheduler-file", str(folder / "scheduler.json"))
        file = folder / "scheduler.json"
        self.address = json.loads(wait_for(lambda: file.exists() and file.read_text()))["address"]

    def worker(self, name, *more, **variables):
        """Start a worker, with the nanny that replaces it when it dies."""
        local = self.folder / name
        local.mkdir()
        words = (self.address, "--nthreads", "1", "--name", name, "--local-directory", str(local), *more)
        return self._start("worker", *words, cwd=local, WORKER=name, **variables)

    def _start(self, what, *words, cwd=None, **variables):
        command = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.dask_{what}", *words, *LOOPBACK]
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=cwd or self.folder,
                env=environment(self.folder, **variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Two workers, the second of which has a GPU, or says so. Tasks begin with a short pause."""
    found = Dask(tmp_path_factory.mktemp("dask"))
    try:
        found.worker("plain", MINE_PAUSE="0.2")
        found.worker("with_gpu", "--resources", "GPU=1", MINE_PAUSE="0.2")
        with Client(found.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield found
    finally:
        found.end()


@pytest.fixture
def folder(tmp_path):
    """A folder with the study's file, which the workers do not know of."""
    write_study(tmp_path)
    return tmp_path


def test_a_worker_is_killed_and_the_results_are_those_of_one_process(dask, folder):
    process = start(folder, "mine.py", "--out", "out", "--scheduler", dask.address)
    wait_for(lambda: len(begun(dask.folder)) >= 5)
    pid = int((dask.folder / "begun.txt").read_text().split()[-1])
    os.kill(pid, signal.SIGKILL)
    study(folder, "mine.py", "--out", "alone")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert out.startswith("From 5.22")
    assert results(folder / "out") == results(folder / "alone")
    pids = {line.split()[1] for line in (dask.folder / "begun.txt").read_text().splitlines()}
    assert len(pids) >= 2
    assert max(Counter(begun(dask.folder)).values()) == 2  # what the killed worker had begun
    assert not (folder / "out" / "work").exists()
    assert not (folder / "out" / "results" / ".token").exists()


def test_tasks_that_fail_or_end_their_worker_are_named(dask, folder):
    for trouble, why in [
        ("breaks", "RuntimeError: two lines"),
        ("dies", "its worker died 4 times before the task was done"),
    ]:
        (dask.folder / "begun.txt").unlink(missing_ok=True)
        study(folder, "mine.py", "--out", "out", "--scheduler", dask.address, "--trouble", trouble, code=1)
        (section,) = read(folder / "out")["sections"]
        assert "2 of 12 tasks failed, 10 are done." in section["finding"]
        assert f"Draw(n=10, seed=0, trouble='{trouble}'): {why};" in section["finding"]
    assert max(Counter(begun(dask.folder)).values()) == 4


def test_tasks_go_where_they_can_be_done_and_large_results_are_sent_to_them(dask, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cluster, "SENT_WITH_TASK", 0)
    text = (folder / "mine.py").read_text()
    text = text.replace('"device": work.device', '"device": work.device, "worker": os.environ["WORKER"]')
    (folder / "mine.py").write_text(text.replace("    n: int\n", "    here = True\n    n: int\n"))
    monkeypatch.setenv("MINE_LOG", str(folder / "begun.txt"))
    assert main(["study", "mine.py", "--out", "out", "--scheduler", dask.address, "--device", "cuda"]) == 0
    sys.modules.pop("mine", None)
    found = [r["result"] for name, r in results(folder / "out").items() if name.startswith("Sum") and "json" in name]
    assert [(one["device"], one["worker"]) for one in found] == [("cuda", "with_gpu")] * 6
    assert len(begun(folder)) == 6
    assert [row[4].split(" ")[0] for row in read(folder / "out")["costs"]["rows"]] == ["cpu", "cuda", ""]


def test_a_scheduler_that_is_not_there_and_dask_that_is_not_installed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cluster, "CONNECT_WITHIN", 0.5)
    assert main(["study", "mine.py", "--out", "out", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no Dask scheduler answers at tcp://127.0.0.1:9: ")
    assert err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ZooError, match=r"^--scheduler needs Dask: pip install 'superposition-zoo\[dask\]'$"):
        cluster.Cluster("tcp://127.0.0.1:9", ResultsFolder(folder), "cpu", None, [])
    sys.modules.pop("mine", None)
