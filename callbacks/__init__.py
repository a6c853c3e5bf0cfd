"""Lightning callbacks: they measure, log, save and stop runs."""

from zoo.callbacks.atoms import AtomReport
from zoo.callbacks.certificates import Certificates
from zoo.callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint, LogSpacedCheckpoints
from zoo.callbacks.embedding_drift import EmbeddingDrift
from zoo.callbacks.end_together import EndTogether
from zoo.callbacks.exact_resume import ExactResume
from zoo.callbacks.feature_geometry import FeatureGeometry
from zoo.callbacks.finite_loss import FiniteLoss
from zoo.callbacks.gate_errors import GateErrors
from zoo.callbacks.graceful_stop import GracefulStop, RunStopped
from zoo.callbacks.learning_coefficient import LearningCoefficient
from zoo.callbacks.progress import RunProgress
from zoo.callbacks.reconstruction_error import ReconstructionError
from zoo.callbacks.run_summary import RunSummary
from zoo.callbacks.spliced_loss import SplicedLoss
from zoo.callbacks.throughput import Throughput

__all__ = [
    "AtomReport",
    "AtomicCheckpointIO",
    "Certificates",
    "EmbeddingDrift",
    "EndTogether",
    "ExactResume",
    "FeatureGeometry",
    "FiniteLoss",
    "GateErrors",
    "GracefulStop",
    "LastCheckpoint",
    "LearningCoefficient",
    "LogSpacedCheckpoints",
    "ReconstructionError",
    "RunProgress",
    "RunStopped",
    "RunSummary",
    "SplicedLoss",
    "Throughput",
]
