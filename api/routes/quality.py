"""How good the labels of a job are: in themselves, against gold, and beside those of another job."""

import heapq
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query

from annotator.agreement import Agreement, score_to_json
from annotator.quality import Quality, Score
from annotator.wire import grounded_from_json, unresolved_from_json
from api.deps import Reader, Reading
from api.errors import documented
from api.pages import ShortLimit
from api.schemas.fields import Id, PathId
from api.schemas.quality import AgreementView, ComparedItemView, ComparisonView, QualityView, ScoreView
from core import quality
from core.db.models import ExampleRow
from core.domain.annotation import Annotation, Example, Reason
from core.domain.relations import relation_to_json
from core.quality import Label, Pair

router = APIRouter(prefix="/v1/annotation-jobs", tags=["annotation jobs"])

_Scored = tuple[Pair, Score, Score]  # exact, by characters


@router.get("/{job_id}/quality", summary="Show how good the labels of a job are", responses=documented(404))
def get_quality(job_id: PathId, session: Reading, me: Reader) -> QualityView:
    """Counted from the labels there are: of a job at work it is how things stand."""
    job = quality.job_of(session, tenant_id=me.tenant_id, job_id=job_id)
    counts = Quality()
    for label in quality.labels(session, job):
        counts.add(*_annotation(label))
    gold = Agreement()
    for predicted, expected in quality.gold_labels(session, tenant_id=me.tenant_id, job_id=job.id):
        gold.add(predicted, expected)
    pending = quality.pending(session, job)
    ambiguous = counts.doubtful + counts.unresolved[Reason.AMBIGUOUS.value]
    return QualityView(
        items=counts.examples + pending,
        pending=pending,
        outcomes=dict(counts.outcomes),
        edges=counts.edges,
        kept=counts.kept,
        grounded_share=round(counts.grounded_share, 4),
        unresolved=dict(counts.unresolved),
        backward_edges=counts.backward_edges,
        doubtful=counts.doubtful,
        ambiguous_share=_share(ambiguous, counts.edges),
        answer_supervised=counts.answer_supervised,
        answer_supervised_share=_share(counts.answer_supervised, counts.examples),
        reviewed=quality.reviews_by_decision(session, job),
        gold=_agreement_view(gold) if gold.examples else None,
    )


@router.get("/{job_id}/compare", summary="Compare the labels of two jobs", responses=documented(404))
def compare_jobs(
    job_id: PathId,
    session: Reading,
    me: Reader,
    other_id: Annotated[Id, Query(alias="with", description="The other annotation job, over the same examples.")],
    limit: ShortLimit = 20,
) -> ComparisonView:
    """Agreement of what two teachers, or one teacher with two priors, said; `limit` of the worst examples in full."""
    job = quality.job_of(session, tenant_id=me.tenant_id, job_id=job_id)
    other = quality.job_of(session, tenant_id=me.tenant_id, job_id=other_id)
    overlap = quality.overlap(session, job, other)
    agreement = Agreement()

    def scored() -> Iterator[_Scored]:
        for pair in quality.pairs(session, job, other):
            yield pair, *agreement.add(pair.relations, pair.others)

    worst = heapq.nsmallest(limit, scored(), key=lambda one: (one[2].f1, one[1].f1))
    positions = [pair.position for pair, _, _ in worst]
    examples = quality.examples_at(session, tenant_id=me.tenant_id, positions=positions)
    return ComparisonView(
        agreement=_agreement_view(agreement),
        unreadable=overlap.both - overlap.said,
        only_here=overlap.only_here,
        only_there=overlap.only_there,
        worst=[_compared(one, examples[one[0].position]) for one in worst],
    )


def _annotation(label: Label) -> tuple[Example, Annotation]:
    return Example(label.input, label.target), Annotation(
        label.outcome,
        tuple(grounded_from_json(relation) for relation in label.relations),
        tuple(unresolved_from_json(edge) for edge in label.unresolved),
    )


def _compared(scored: _Scored, example: ExampleRow) -> ComparedItemView:
    pair, exact, characters = scored
    return ComparedItemView(
        example_id=example.key,
        split=example.split,
        input=example.input,
        target=example.target,
        annotation_id=pair.annotation_id,
        other_annotation_id=pair.other_id,
        relations=[relation_to_json(relation) for relation in pair.relations],
        other_relations=[relation_to_json(relation) for relation in pair.others],
        exact=_score_view(exact),
        characters=_score_view(characters),
    )


def _agreement_view(agreement: Agreement) -> AgreementView:
    return AgreementView(
        examples=agreement.examples,
        exact=_score_view(agreement.exact),
        characters=_score_view(agreement.characters),
    )


def _score_view(score: Score) -> ScoreView:
    return ScoreView(**score_to_json(score))


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
