"""What the teacher of a job is shown beside the demonstrations of its prior."""

from dataclasses import dataclass

from annotator.nearest import Pool
from core.annotation_items import Asked
from core.db.session import Session
from core.domain.annotation import Demonstration, Example
from core.labels import evaluated_splits
from core.leases import Claim
from core.reviews import for_demonstrations


@dataclass(frozen=True, slots=True)
class Shown:
    """Reviewed examples, of which each item is shown those that resemble it most; none where none were asked for."""

    pool: Pool
    k: int
    splits: tuple[str, ...]  # those it draws from
    # False once a training evaluates a split that was drawn from when the job began: what was asked before cannot be
    # rendered again.
    as_before: bool

    def beside(self, example: Example) -> tuple[Demonstration, ...]:
        """What is shown with an example, the nearest last."""
        return self.pool.draw(example, self.k)


def shown_to(session: Session, claim: Claim, asked: Asked) -> Shown:
    """What a job may be shown as things are: the reviews of when it was asked for, and no split evaluated since."""
    source = asked.demonstrations
    if source is None:
        return Shown(Pool([]), 0, (), as_before=True)
    found = for_demonstrations(session, tenant_id=claim.tenant_id, dataset_id=asked.dataset_id, source=source)
    return Shown(Pool(found.examples), source.k, found.splits, as_before=found.splits == source.splits)


def shown_from_now_on(session: Session, claim: Claim, asked: Asked, shown: Shown) -> Shown:
    """The same, or, when a training evaluates since what it draws from, what is left of it."""
    if not shown.splits:
        return shown
    evaluated = evaluated_splits(session, tenant_id=claim.tenant_id, dataset_id=asked.dataset_id)
    return shown_to(session, claim, asked) if evaluated.intersection(shown.splits) else shown
