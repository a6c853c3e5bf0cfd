"""Are there circles or binding in the embedding?"""

from collections.abc import Mapping
from dataclasses import dataclass

from jsonargparse.typing import NonNegativeInt, PositiveInt

from zoo.report import Report, Verdict
from zoo.studies.binding import Binding
from zoo.studies.circles import Circles
from zoo.study import NotTested, Study


@dataclass(frozen=True)
class Structure(Study):
    """The search for circles and binding alone, without dictionaries and training.

    Args:
        source: The embedding: what `zoo.embedding` takes.
        step: Of pretraining, for a source that holds several; by default the last.
        families: File with families of tokens in a known order, beside the zoo's: YAML or JSON.
        null_draws: Draws of the covariance-matched null model that are searched in the same way.
        keep_untrained: Whether rows that look untrained are searched too.
        tokens: File with the rows' tokens, for a source that has none: .txt with a token per line, or .json.
    """

    source: str = "gpt2-mini.learned"
    step: NonNegativeInt | None = None
    families: str | None = None
    null_draws: PositiveInt = 20
    keep_untrained: bool = False
    tokens: str | None = None
    aliases = {"embedding": "source"}  # noqa: RUF012

    def parts(self) -> Mapping[str, Study | NotTested]:
        """Binding and circles, which share the search."""
        shared = (self.source, self.step, self.families, self.null_draws, self.keep_untrained, (), self.tokens)
        return {"binding": Binding(*shared), "circles": Circles(*shared)}

    def report_of_parts(self, parts: Mapping[str, Report | NotTested]) -> Report:
        """Both findings."""
        reports = [part for part in parts.values() if isinstance(part, Report)]
        if not reports:
            return Report(self.source, Verdict("No answer yet.", ""), self.sections(parts))
        headline = " ".join(part.verdict.headline for part in reports)
        verdict = Verdict(headline, reports[0].verdict.certainty, numbers=reports[0].verdict.numbers)
        return Report(reports[0].subject, verdict, self.sections(parts))
