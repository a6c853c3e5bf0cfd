"""Results of which some are others than was computed."""

from collections.abc import Mapping

from zoo.study import Result, Results, Task


class Changed:
    """Results by task.

    Args:
        results: What was computed.
        others: What stands in its place.
    """

    def __init__(self, results: Results, others: Mapping[Task, Result]) -> None:
        self.results, self.others = results, {task.key: result for task, result in others.items()}

    def __getitem__(self, task: Task) -> Result:
        return self.others[task.key] if task.key in self.others else self.results[task]

    def __contains__(self, task: object) -> bool:
        return task in self.results
