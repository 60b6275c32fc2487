"""What an annotation job would do and cost, before any teacher is asked."""

import time
from collections.abc import Iterable, Iterator
from itertools import takewhile

from annotator.nearest import Pool
from annotator.plan import plan_labels
from annotator.prior import prior_from_json
from annotator.prompts import render
from annotator.teachers.rule import silent_patterns
from api.schemas.annotations import AnnotationPlanView, DemonstrationsPlanView
from core.annotations import AnnotationPlan
from core.domain.annotation import Example, TeacherConfig
from core.reviews import ReviewedExamples

_SHOWN = 3  # prompts
_DRAWN_FOR = 200  # examples that a plan with demonstrations is estimated from: a search and a quotation for each
_PATIENCE = 5.0  # seconds of CPU that patterns may take: one that explodes would otherwise do so a thousand times


def plan_view(
    plan: AnnotationPlan,
    teacher: TeacherConfig,
    *,
    votes: int = 1,
    k: int = 0,
    shown: ReviewedExamples | None = None,
) -> AnnotationPlanView:
    """A plan as shown, estimated from its sample; where reviewed examples are `shown`, the `k` nearest to each item."""
    prior = prior_from_json(plan.prior.body)
    by_rules = teacher.kind == "rule"
    pool = Pool([] if shown is None else shown.examples)
    sample = plan.sample if shown is None else plan.sample[:: -(-len(plan.sample) // _DRAWN_FOR)]
    costs = plan_labels(prior, teacher, () if by_rules else sample, draw=lambda example: pool.draw(example, k))
    scale = votes * plan.items / len(sample)
    return AnnotationPlanView(
        items=plan.items,
        by_split=plan.by_split,
        teacher=teacher.name,
        prompts=[render(prior, example, pool.draw(example, k)) for example in sample[:_SHOWN]],
        estimated_from=len(sample),
        tokens=round(costs.tokens * scale),
        usd=round(costs.usd * scale, 6),
        demonstrations=shown and DemonstrationsPlanView(pool=len(pool), k=k, splits=list(shown.splits)),
        silent_patterns=list(silent_patterns(prior, _for_a_while(plan.sample))) if by_rules else [],
    )


def _for_a_while(examples: Iterable[Example]) -> Iterator[Example]:
    end = time.thread_time() + _PATIENCE
    return takewhile(lambda _: time.thread_time() < end, examples)
