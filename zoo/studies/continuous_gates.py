"""How close do networks that compute with real numbers in superposition come to the best that is possible?

Toys have reference losses that are known exactly: n functions ReLU(x_i) with fewer neurons, maps of small rank under
the loss |error|^q, products of all pairs of inputs, and circuits that share a deep network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.report import Report, Verdict
from zoo.studies.circuits_in_depth import CircuitsInDepth
from zoo.studies.compressed_computation import CompressedComputation
from zoo.studies.pair_products import PairProducts
from zoo.studies.product_readoffs import ProductReadoffs
from zoo.studies.shared_dimensions import SharedDimensions
from zoo.study import AtLeastTwo, NotTested, Study


@dataclass(frozen=True)
class ContinuousGates(Study):
    """Toys that compute with real numbers are trained, and compared with exact losses and bounds.

    Args:
        seeds: Number of networks of every kind; `shared-dimensions` has 16 times as many, and `product-readoffs` and
            `circuits-in-depth` have 4 times as many.
    """

    seeds: AtLeastTwo = 4

    def parts(self) -> Mapping[str, Study]:
        """Return the studies of all toys."""
        seeds: dict[str, Any] = {"seeds": self.seeds}
        studies = (
            CompressedComputation(**seeds),
            SharedDimensions(**seeds),
            ProductReadoffs(**seeds),
            PairProducts(**seeds),
            CircuitsInDepth(**seeds),
        )
        return {study.name: study for study in studies}

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """Return a report with the answers of all parts."""
        subject = "Toys that compute with real numbers, and their exact reference losses"
        verdicts = {name: part.verdict if isinstance(part, Report) else None for name, part in parts.items()}
        return Report(subject, Verdict.combined(verdicts), self.sections(parts))
