"""What every step of a slice in batch mode needs."""

from dataclasses import dataclass
from functools import cached_property

from annotator.batch_items import Question, question_about
from annotator.teachers.batch_endpoint import BatchEndpoint
from core.annotation_items import Asked
from core.batch_items import BatchItem
from core.domain.annotation import Prior, TeacherConfig, Usage
from core.domain.spending import Cost, cost_of, in_batches
from core.leases import Claim
from worker.heart import Heart
from worker.runtime import Runtime
from worker.shown import Shown, shown_to


@dataclass(frozen=True)
class Scene:
    """A claimed job, its teacher, and the endpoint that its batches go to."""

    runtime: Runtime
    claim: Claim
    heart: Heart
    config: TeacherConfig
    asked: Asked
    prior: Prior
    endpoint: BatchEndpoint

    def over(self) -> bool:
        """Whether to stop at the next step: whoever comes next goes on from what is written."""
        return self.heart.cancelled.is_set() or self.heart.lost.is_set() or self.runtime.draining.is_set()

    def question(self, item: BatchItem) -> Question:
        """What the teacher is to be asked about an item."""
        demonstrations = self.shown.beside(item.example)
        return question_about(
            item.example, prior=self.prior, config=self.config, first=item.first, demonstrations=demonstrations
        )

    @cached_property
    def shown(self) -> Shown:
        """What the teacher is shown beside the demonstrations of the prior."""
        with self.runtime.database.reading() as session:
            return shown_to(session, self.claim, self.asked)

    def price(self, usage: Usage) -> Cost:
        """What the teacher charges for so many tokens of a batch."""
        return cost_of(usage, in_batches(self.config))
