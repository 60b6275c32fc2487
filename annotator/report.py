"""How well a file of published labels grounds, as counts that add up."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from annotator.grounding import ground
from annotator.importer import read_important, read_texts
from core.domain.annotation import GroundedRelation
from core.domain.spans import Grounding


@dataclass(slots=True)
class GroundingReport:
    """Counts over a file. An edge is one (effect, cause) pair as written: edges = kept + all of unresolved."""

    examples: int = 0
    empty: int = 0  # examples without a single edge
    malformed: int = 0  # lines and entries that are not in the format
    edges: int = 0
    kept: int = 0
    folded: int = 0  # kept, with a phrase that needed folding, none that needed more
    fuzzy: int = 0  # kept, with a phrase that was misquoted
    ambiguous: int = 0  # kept, flagged doubtful: more than one place was possible
    unresolved: dict[str, int] = field(default_factory=dict)  # by reason
    phrases: int = 0  # quotes looked up: one an effect, one a cause
    seconds: float = 0.0  # of one core, spent on grounding: reading, and what other processes take, excluded

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return asdict(self) | {"seconds": round(self.seconds, 4)}


def report_on(records: Iterable[Any]) -> GroundingReport:
    """Ground every record of a published file and count. No record raises; what is not in the format is counted."""
    report = GroundingReport()
    reasons: Counter[str] = Counter()
    for record in records:
        report.examples += 1
        texts = read_texts(record)
        if texts is None:
            report.malformed += 1
            report.empty += 1
            continue
        input_, target = texts
        started = time.process_time()
        relations, malformed = read_important(record.get("important"))
        grounded, unresolved = ground(input_ + target, len(input_), relations)
        report.seconds += time.process_time() - started
        report.malformed += malformed
        report.phrases += sum(1 + len(relation.causes) for relation in relations)
        edges = sum(len(relation.causes) for relation in relations)
        report.empty += edges == 0
        report.edges += edges
        reasons.update(edge.reason.value for edge in unresolved if edge.cause or edge.effect_at_fault)
        _count_kept(report, grounded)
    report.unresolved = dict(sorted(reasons.items()))
    return report


def _count_kept(report: GroundingReport, relations: Iterable[GroundedRelation]) -> None:
    for relation in relations:
        for cause in relation.causes:
            how = {relation.effect.grounding, cause.grounding}
            report.kept += 1
            report.fuzzy += Grounding.FUZZY in how
            report.folded += Grounding.FOLDED in how and Grounding.FUZZY not in how
            report.ambiguous += relation.effect.doubtful or cause.doubtful
