"""Studies done in the test's own process."""

from zoo.study import NotFinished, NotTested, Work, all_tasks


class _Done(dict):
    """Results by task."""

    def __getitem__(self, task):
        if task not in self:
            raise NotFinished(task)
        return super().__getitem__(task.key)

    def __setitem__(self, task, result):
        super().__setitem__(task.key, result)

    def __contains__(self, task):
        return super().__contains__(task.key)


def do_tasks(study, tmp_path):
    """Do all tasks of a study in order; returns their results by task."""
    results = _Done()
    for task in all_tasks(study):
        results[task] = task.do(Work(results, tmp_path / task.key))
    return results


def answer(study, tmp_path):
    """Do a study's tasks; returns its report."""
    return report_of(study, do_tasks(study, tmp_path))


def report_of(study, results):
    """The report of a study, and of its parts before, if it has parts."""
    parts = study.parts()
    if not parts:
        return study.report(results)
    return study.report_of_parts(
        {name: part if isinstance(part, NotTested) else report_of(part, results) for name, part in parts.items()}
    )
