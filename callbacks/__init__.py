"""What watches a run."""

from zoo.callbacks.checkpoints import LastCheckpoint, LogSpacedCheckpoints
from zoo.callbacks.embedding_drift import EmbeddingDrift
from zoo.callbacks.exact_resume import ExactResume
from zoo.callbacks.finite_loss import FiniteLoss
from zoo.callbacks.graceful_stop import GracefulStop, RunStopped
from zoo.callbacks.progress import RunProgress
from zoo.callbacks.run_summary import RunSummary
from zoo.callbacks.throughput import Throughput

__all__ = [
    "EmbeddingDrift",
    "ExactResume",
    "FiniteLoss",
    "GracefulStop",
    "LastCheckpoint",
    "LogSpacedCheckpoints",
    "RunProgress",
    "RunStopped",
    "RunSummary",
    "Throughput",
]
