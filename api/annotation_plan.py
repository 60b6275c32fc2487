"""What an annotation job would do and cost, before any teacher is asked."""

import time
from collections.abc import Iterable, Iterator
from itertools import takewhile

from annotator.plan import plan_labels
from annotator.prior import prior_from_json
from annotator.prompts import render
from annotator.teachers.rule import silent_patterns
from api.schemas.annotations import AnnotationPlanView
from core.annotations import AnnotationPlan
from core.domain.annotation import Example, TeacherConfig

_SHOWN = 3  # prompts
_PATIENCE = 5.0  # seconds of CPU that patterns may take: one that explodes would otherwise do so a thousand times


def plan_view(plan: AnnotationPlan, teacher: TeacherConfig, *, votes: int = 1) -> AnnotationPlanView:
    """A plan as shown, estimated from its sample."""
    prior = prior_from_json(plan.prior.body)
    by_rules = teacher.kind == "rule"
    costs = plan_labels(prior, teacher, () if by_rules else plan.sample)
    scale = votes * plan.items / len(plan.sample)
    return AnnotationPlanView(
        items=plan.items,
        by_split=plan.by_split,
        teacher=teacher.name,
        prompts=[render(prior, example) for example in plan.sample[:_SHOWN]],
        estimated_from=len(plan.sample),
        tokens=round(costs.tokens * scale),
        usd=round(costs.usd * scale, 6),
        silent_patterns=list(silent_patterns(prior, _for_a_while(plan.sample))) if by_rules else [],
    )


def _for_a_while(examples: Iterable[Example]) -> Iterator[Example]:
    end = time.thread_time() + _PATIENCE
    return takewhile(lambda _: time.thread_time() < end, examples)
