"""What do the toys of superposition, and of computation in superposition, show? All of them, and one report."""

from zoo.studies.toys.study import run

__all__ = ["run"]
