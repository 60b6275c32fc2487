"""How good labels are, over HTTP: what adds up, gold, and two jobs side by side."""

import json
from collections.abc import Sequence
from typing import Any

from annotator.wire import annotation_to_json
from core import annotation_items, leases
from core.domain.annotation import Annotation, GroundedRelation, Outcome, Phrase, Reason, Unresolved
from core.domain.spans import Grounding, Span
from tests.api.conftest import Api

TEXTS = [f"Sun shines {n}. Warm? " for n in range(4)]  # of 20 characters
SUN, SHINES, YES = (0, 3), (4, 10), (20, 23)
GOLD = [{"effect": {"start": 20, "end": 23}, "causes": [{"start": 0, "end": 3}, {"start": 4, "end": 10}]}]
LINES = b"\n".join(
    json.dumps(
        {"id": str(n), "input": text, "target": "yes"} | ({"gold": True, "relations": GOLD} if n < 2 else {})
    ).encode()
    for n, text in enumerate(TEXTS)
)


def said(*causes: tuple[int, int], effect: tuple[int, int] = YES, doubtful: bool = False) -> Annotation:
    """A label of one relation."""
    phrases = [Phrase(Span(*at), "x", Grounding.EXACT, doubtful=doubtful) for at in causes]
    relation = GroundedRelation(Phrase(Span(*effect), "x", Grounding.EXACT), tuple(phrases))
    return Annotation(Outcome.LABELLED, (relation,))


NOTHING = Annotation(Outcome.EMPTY, unresolved=(Unresolved("yes", "moon", Reason.NOT_BEFORE_EFFECT),))
UNREADABLE = Annotation(Outcome.UNREADABLE, detail="prose")


def labelled(api: Api, dataset_id: str, annotations: Sequence[Annotation]) -> str:
    """A job whose items were given these labels, in order; done when there is one for each."""
    job_id = api.annotation_job(dataset_id)
    with api.database.transaction() as uow:
        claim = leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
        assert claim is not None
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {item.id: annotation_to_json(one) for item, one in zip(items, annotations, strict=False)}
        annotation_items.store_labels(uow, claim, labels, items_per_second=1.0)
        if len(annotations) == len(items):
            annotation_items.complete(uow, claim)
    return job_id


def quality(api: Api, job_id: str) -> Any:
    answer = api.client.get(f"/v1/annotation-jobs/{job_id}/quality")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_everything_adds_up(api: Api) -> None:
    job_id = labelled(
        api, api.dataset(LINES), [said(SUN, SHINES), NOTHING, said(SUN, effect=SHINES, doubtful=True), UNREADABLE]
    )
    found = quality(api, job_id)
    gold = found.pop("gold")
    assert found == {
        "items": 4,
        "pending": 0,
        "outcomes": {"labelled": 2, "empty": 1, "unreadable": 1},
        "edges": 4,
        "kept": 3,
        "grounded_share": 0.75,
        "unresolved": {"not_before_effect": 1},
        "backward_edges": 1,
        "doubtful": 1,
        "ambiguous_share": 0.25,
        "answer_supervised": 1,
        "answer_supervised_share": 0.25,
        "reviewed": {},
    }
    assert gold["examples"] == 2
    assert (gold["exact"]["precision"], gold["exact"]["recall"]) == (1.0, 0.5)


def test_a_job_at_work_shows_how_things_stand(api: Api) -> None:
    found = quality(api, labelled(api, api.dataset(LINES), [said(SUN)]))
    assert (found["items"], found["pending"], found["outcomes"]) == (4, 3, {"labelled": 1})
    assert found["gold"]["exact"]["f1"] == 0.6667
    fresh = quality(api, api.annotation_job())
    assert (fresh["pending"], fresh["outcomes"], fresh["gold"]) == (2, {}, None)
    assert (fresh["grounded_share"], fresh["answer_supervised_share"]) == (1.0, 0.0)


def test_reviews_are_counted_and_hide_no_mistake(api: Api) -> None:
    job_id = labelled(api, api.dataset(LINES), [said(SUN), said(SUN), said(SUN), said(SUN)])
    before = quality(api, job_id)
    first, second, *_ = api.client.get("/v1/annotations", params={"job_id": job_id}).json()["items"]
    for version, item, body in (
        (1, first, {"decision": "accepted"}),
        (2, first, {"decision": "changed", "relations": GOLD}),
        (1, second, {"decision": "accepted"}),
    ):
        put = api.client.put(f"/v1/annotations/{item['id']}/review", json={"version": version, **body})
        assert put.status_code == 200, put.text
    assert quality(api, job_id) == before | {"reviewed": {"accepted": 1, "changed": 1}}


def test_two_jobs_side_by_side_worst_first(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    one = labelled(api, dataset_id, [said(SUN, SHINES), said(SUN), said(SUN), UNREADABLE])
    other = labelled(api, dataset_id, [said(SUN, SHINES), NOTHING, said(SUN, SHINES), said(SUN)])
    found = compared(api, one, other)
    assert (found["unreadable"], found["only_here"], found["only_there"]) == (1, 0, 0)
    assert found["agreement"]["examples"] == 3
    assert found["agreement"]["exact"]["shared"] == 3
    assert (found["agreement"]["exact"]["predicted"], found["agreement"]["exact"]["expected"]) == (4, 4)
    assert [item["example_id"] for item in found["worst"]] == ["1", "2", "0"]
    assert [item["characters"]["f1"] for item in found["worst"]] == [0.0, 0.5, 1.0]
    worst = found["worst"][0]
    assert (worst["input"], worst["target"], worst["other_relations"]) == (TEXTS[1], "yes", [])
    assert worst["relations"] == [{"effect": {"start": 20, "end": 23}, "causes": [{"start": 0, "end": 3}]}]
    assert [item["example_id"] for item in compared(api, one, other, limit=1)["worst"]] == ["1"]
    assert compared(api, one, one)["agreement"]["characters"]["f1"] == 1.0


def test_jobs_without_a_common_example_cannot_be_compared(api: Api) -> None:
    one, other = (labelled(api, api.dataset(LINES), [said(SUN)] * 4) for _ in range(2))
    refused = api.client.get(f"/v1/annotation-jobs/{one}/compare", params={"with": other})
    assert (refused.status_code, refused.json()["field"]) == (422, "with")
    assert api.client.get(f"/v1/annotation-jobs/{one}/compare").status_code == 422


def test_only_one_s_own_jobs_are_compared(api: Api) -> None:
    mine = api.annotation_job()
    theirs = api.as_(api.secret("umbrella"))
    for here, there in ((mine, mine), (mine, "an_1"), ("an_1", mine)):
        assert theirs.get(f"/v1/annotation-jobs/{here}/compare", params={"with": there}).status_code == 404
    assert api.client.get(f"/v1/annotation-jobs/{mine}/compare", params={"with": "an_1"}).status_code == 404


def compared(api: Api, one: str, other: str, **query: Any) -> Any:
    answer = api.client.get(f"/v1/annotation-jobs/{one}/compare", params={"with": other, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_gold_is_marked_when_it_is_posted(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    shown = api.client.get(f"/v1/datasets/{dataset_id}/examples").json()["items"]
    assert [example["gold"] for example in shown] == [True, True, False, False]
    again = api.client.post(f"/v1/datasets/{dataset_id}/examples", content=LINES).json()
    assert (again["stored"], again["unchanged"]) == (0, 4)
    ordinary = LINES.splitlines()[0].replace(b', "gold": true', b"")
    assert ordinary != LINES.splitlines()[0]
    assert api.client.post(f"/v1/datasets/{dataset_id}/examples", content=ordinary).status_code == 409
