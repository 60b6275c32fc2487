"""What a teacher sees beside its prior: reviewed examples that resemble the item, nothing that it is measured by."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from core import annotation_items, annotations, leases, trainings
from core.db.models import Job
from core.domain.annotation import Decision
from core.domain.lifecycle import JobState
from core.domain.training import Method, TrainingConfig
from core.job_store import cancel_job
from core.jobs import JobKind
from core.labels import DemonstrationSource
from core.settings import TeacherSettings
from tests import scenes
from tests.core.test_reviews import put
from tests.fake_batches import FakeBatches
from tests.fake_teacher import FakeTeacher
from tests.worker.batch_scenes import job_in_batches, slice_of, taught_by, until_it_stops
from tests.worker.conftest import PATIENCE, in_background, wait_until
from worker.runtime import Runtime
from worker.tasks.annotation import annotate

SPLITS = ("train", "gold", "iid", "more")
WORDS = {"gold": "dew", "iid": "fog", "more": "icy"}  # which the texts of a split begin with; those of train with sun
REVIEWED = re.compile(r"\[1\] (\w{3} \d\d)\?")
THREE = DemonstrationSource(3, ("train", "gold", "iid"))


@dataclass
class Listening(FakeTeacher):
    """A teacher that names no relation, and remembers all that it was sent."""

    answer: Any = lambda _: '{"relations": []}'
    prompts: list[list[dict[str, str]]] = field(default_factory=list)
    hold_after: int = 1_000_000  # prompts: to those after them there is no reply before `go_on`
    go_on: threading.Event = field(default_factory=threading.Event)

    def begin(self, body: dict[str, Any], authorization: str) -> str:
        self.prompts.append(body["messages"])
        if len(self.prompts) > self.hold_after:
            self.go_on.wait(PATIENCE)
        return super().begin(body, authorization)


def shown_in(prompt: Sequence[dict[str, str]]) -> tuple[str, list[str]]:
    """The item of a prompt, and the examples before it."""
    *shown, item = [found for message in prompt for found in REVIEWED.findall(message["content"])]
    return item, shown


def add_reviewed(runtime: Runtime) -> str:
    """A dataset of four splits whose every example was reviewed. `gold` is gold, and a training evaluates `iid`."""
    database = runtime.database
    dataset_id = scenes.dataset(database, examples=6)
    for split, word in WORDS.items():
        scenes.add_examples(database, dataset_id, examples=6, split=split, word=word, gold=split == "gold")
    review_all(runtime, dataset_id)
    evaluate(runtime, dataset_id, "iid")
    return dataset_id


def evaluate(runtime: Runtime, dataset_id: str, split: str) -> None:
    """Ask for a training that evaluates a split."""
    with runtime.database.transaction() as uow:
        trainings.submit(
            uow,
            tenant_id=scenes.TENANT,
            dataset_id=dataset_id,
            base=scenes.BASE,
            config=TrainingConfig(method=Method.SFT),
            eval_splits=[split],
        )


def review_all(runtime: Runtime, dataset_id: str) -> list[int]:
    """Accept a label of every example; the annotations that were reviewed."""
    job = scenes.annotation_job_on(runtime.database, dataset_id, splits=())
    claim = scenes.claimed(runtime.database, job.id)
    with runtime.database.transaction() as uow:
        items = annotation_items.pending_items(uow.session, claim, after=0, limit=100)
        labels = {item.id: scenes.label() for item in items}
        annotation_items.store_labels(uow, claim, labels, items_per_second=1.0)
        annotation_items.complete(uow, claim)
    for item in items:
        put(runtime.database, item.id, 1, decision=Decision.ACCEPTED, relations=None)
    return [item.id for item in items]


def taught(runtime: Runtime, teacher: FakeTeacher, *, concurrency: int = 4, **rhythm: float) -> Runtime:
    settings = TeacherSettings(base_url=teacher.base_url, model="m", concurrency=concurrency)
    jobs = runtime.settings.jobs.model_copy(update=rhythm)
    changed = runtime.settings.model_copy(update={"teachers": {"fake": settings}, "jobs": jobs})
    return replace(runtime, settings=changed, draining=threading.Event(), health={})


def work(runtime: Runtime, job: Job, teacher: Listening) -> list[tuple[str, list[str]]]:
    """Finish a job; what was shown with each of its items in what the teacher heard of it."""
    before = len(teacher.prompts)
    annotate(taught(runtime, teacher), job.id)
    assert scenes.row(runtime.database, job.id).state == JobState.SUCCEEDED
    return sorted(shown_in(prompt) for prompt in teacher.prompts[before:])


def job_on(runtime: Runtime, dataset_id: str, **asked: Any) -> Job:
    asked = {"splits": SPLITS, "demonstrations": THREE} | asked
    return scenes.annotation_job_on(runtime.database, dataset_id, teacher="fake", **asked)


def leaks(heard: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Examples that were shown though they must not be: gold, of an evaluated split, of a split that was not named."""
    return [text for _, shown in heard for text in shown if text[:3] in WORDS.values()]


def test_each_item_is_shown_those_that_resemble_it_and_none_that_must_not_be(runtime: Runtime) -> None:
    dataset_id = add_reviewed(runtime)
    with Listening().serving() as teacher:
        heard = work(runtime, job_on(runtime, dataset_id), teacher)
    assert len(heard) == 24
    assert leaks(heard) == []
    for item, shown in heard:
        assert len(shown) == len(set(shown)) == 3
        assert item not in shown
    assert ("sun 00", ["sun 03", "sun 02", "sun 01"]) in heard  # the nearest last, here by their order
    # An item of another split meets the train example with its number first.
    assert all(shown[-1][4:] == item[4:] for item, shown in heard if item[:3] != "sun")


def test_a_human_is_quoted_and_the_cache_tells_the_prompts_apart(runtime: Runtime) -> None:
    dataset_id = add_reviewed(runtime)
    with Listening().serving() as teacher:
        work(runtime, job_on(runtime, dataset_id, splits=("train",)), teacher)
        *_, demonstration, answer, _ = teacher.prompts[0]
        assert demonstration["role"] == "user"
        assert answer["role"] == "assistant"
        assert '"quote": "sun"' in answer["content"]
        assert len(work(runtime, job_on(runtime, dataset_id, splits=("train",), demonstrations=None), teacher)) == 6
        assert work(runtime, job_on(runtime, dataset_id, splits=("train",)), teacher) == []  # heard before


def test_every_vote_sees_them(runtime: Runtime) -> None:
    dataset_id = add_reviewed(runtime)
    with Listening().serving() as teacher:
        heard = work(runtime, job_on(runtime, dataset_id, splits=("train",), votes=3), teacher)
    assert len(heard) == 18
    assert heard[0::3] == heard[1::3] == heard[2::3]
    assert all(len(shown) == 3 for _, shown in heard)


def test_without_reviews_there_is_the_prior_alone(runtime: Runtime) -> None:
    dataset_id = scenes.dataset(runtime.database, examples=2)
    with Listening().serving() as teacher:
        assert work(runtime, job_on(runtime, dataset_id), teacher) == [("sun 00", []), ("sun 01", [])]


def test_later_reviews_change_no_prompt_of_a_job_or_of_its_repetition(runtime: Runtime) -> None:
    dataset_id = scenes.dataset(runtime.database, examples=3)
    items = review_all(runtime, dataset_id)
    first, second = (job_on(runtime, dataset_id) for _ in range(2))
    for item in items:
        put(runtime.database, item, 2)  # nothing causes anything after all
    with Listening().serving() as teacher:
        before = work(runtime, first, teacher)
        with runtime.database.transaction() as uow:
            cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=second.id)
            again = annotations.retry(uow, tenant_id=scenes.TENANT, job_id=second.id)
        assert work(runtime, again, teacher) == []  # all of it was heard before
        assert ['"sun"' in prompt[-2]["content"] for prompt in teacher.prompts] == [True] * 3
        assert work(runtime, job_on(runtime, dataset_id), teacher) == before  # the same examples, told otherwise
        assert [prompt[-2]["content"] for prompt in teacher.prompts[3:]] == ['{"relations": []}'] * 3


def test_a_split_that_is_evaluated_since_is_not_shown_any_more(runtime: Runtime) -> None:
    dataset_id = add_reviewed(runtime)
    job = job_on(runtime, dataset_id, demonstrations=DemonstrationSource(8, ("train", "more")))
    evaluate(runtime, dataset_id, "more")
    with Listening().serving() as teacher:
        assert leaks(work(runtime, job, teacher)) == []


def test_nor_by_a_worker_that_keeps_the_job(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_id = add_reviewed(runtime)
    scenes.add_examples(runtime.database, dataset_id, examples=40, split="long")
    looked: list[float] = []
    others_wait = leases.others_wait
    monkeypatch.setattr(leases, "others_wait", lambda *asked: looked.append(0.0) or others_wait(*asked))
    job = job_on(runtime, dataset_id, splits=("long",), demonstrations=DemonstrationSource(8, ("train", "more")))
    with Listening(hold_after=2).serving() as teacher:
        worker = taught(runtime, teacher, concurrency=1, slice=0.05)
        working = in_background(lambda: annotate(worker, job.id))
        wait_until(lambda: len(teacher.prompts) > 2)
        evaluate(runtime, dataset_id, "more")
        seen = len(looked)
        wait_until(lambda: len(looked) > seen + 1)  # so one look began after that
        teacher.go_on.set()
        working.join()
    now = scenes.row(runtime.database, job.id)
    assert (now.state, now.epoch) == (JobState.SUCCEEDED, 1)
    heard = [shown_in(prompt) for prompt in teacher.prompts]
    assert leaks(heard[:1]) != []
    assert leaks(heard[20:]) == []  # what was drawn before is at most two windows of four items


def test_questions_in_batches_show_them_too(runtime: Runtime) -> None:
    dataset_id = add_reviewed(runtime)
    with FakeBatches().serving() as fake:
        worker = taught_by(runtime, fake)
        assert until_it_stops(worker, job_in_batches(runtime, dataset_id=dataset_id, demonstrations=THREE)).done == 6
        heard = [shown_in(body["messages"]) for body in fake.bodies]
        assert leaks(heard) == []
        assert [len(shown) for _, shown in heard] == [3] * 6
        again = job_in_batches(runtime, dataset_id=dataset_id, demonstrations=THREE)
        assert until_it_stops(worker, again).done == 6
        assert len(fake.bodies) == 6  # answered before


def test_an_answer_to_a_prompt_that_cannot_be_made_again_is_not_kept_for_another(runtime: Runtime) -> None:
    dataset_id = add_reviewed(runtime)
    wide = DemonstrationSource(3, ("more",))
    with FakeBatches(looks=1).serving() as fake:
        worker = taught_by(runtime, fake)
        job = job_in_batches(runtime, dataset_id=dataset_id, demonstrations=wide)
        slice_of(worker, job)  # it is sent
        assert leaks([shown_in(body["messages"]) for body in fake.bodies]) != []
        evaluate(runtime, dataset_id, "more")
        assert until_it_stops(worker, job).done == 6
        narrow = job_in_batches(runtime, dataset_id=dataset_id, demonstrations=wide)
        assert until_it_stops(worker, narrow).done == 6
        assert [shown for _, shown in map(shown_in, (body["messages"] for body in fake.bodies[6:]))] == [[]] * 6
