"""Studies done in the process of a test."""

from pathlib import Path
from typing import Any

from zoo.report import Report
from zoo.running.folder import Cost, ResultsFolder
from zoo.study import NotFinished, Study, Task, Work, all_tasks


class Done(dict[str, Any]):
    """Results by task, as they are read back from a study's folder. They may be replaced."""

    def __getitem__(self, task: Task) -> Any:
        if task not in self:
            raise NotFinished(task)
        return super().__getitem__(task.key)

    def __setitem__(self, task: Task, result: Any) -> None:
        super().__setitem__(task.key, result)

    def __contains__(self, task: object) -> bool:
        return isinstance(task, Task) and super().__contains__(task.key)


def do_tasks(study: Study, tmp_path: Path) -> Done:
    """The results of all tasks of a study and of its parts, done one after the other."""
    done, folder = Done(), ResultsFolder(tmp_path / "out")
    folder.make()
    for task in all_tasks(study):
        folder.put(task, task.do(Work(done, tmp_path / task.key)), Cost(0.0, 0.0, "cpu", ""))
        done[task] = folder[task]
    return done


def answer(study: Study, tmp_path: Path) -> Report:
    """The report of a study whose tasks are done here, or of the reports of its parts."""
    return _told(study, do_tasks(study, tmp_path))


def _told(study: Study, done: Done) -> Report:
    if not study.parts():
        return study.report(done)
    parts = {name: _told(part, done) if isinstance(part, Study) else part for name, part in study.parts().items()}
    return study.report_of_parts(parts)
