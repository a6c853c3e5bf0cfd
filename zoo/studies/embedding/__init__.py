"""What does a token embedding hold that superposition does not explain? All experiments on it, and the decision."""

from zoo.studies.embedding.study import Settings, run

__all__ = ["Settings", "run"]
