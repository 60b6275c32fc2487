"""What tests about jobs start from: a dataset, a prior, a job, a claim, a label."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from core import annotations, leases, trainings
from core.db.base import clock
from core.db.models import Dataset, ExampleRow, Job, OutboxRow, PriorRow
from core.db.session import Database
from core.domain.ids import new_id
from core.domain.run_folder import BaseModelSpec
from core.domain.training import Method, TrainingConfig
from core.job_store import events_after
from core.labels import DemonstrationSource, LabelSource
from core.leases import Claim

TENANT = "acme"
BASE = BaseModelSpec("builtin:small", "builtin:small")
RELATION = {"effect": {"start": 8, "end": 11}, "causes": [{"start": 0, "end": 3}]}
PRIOR = {
    "name": "weather",
    "version": "1",
    "instructions": "Mark what the answer comes from.",
    "rules": [{"causes": ["sun|snow"]}],
}


def dataset(
    database: Database, *, examples: int = 3, split: str = "train", relations: Sequence[Any] = (), tenant: str = TENANT
) -> str:
    """A dataset with examples `k0`, `k1`, ... whose text is "sun 17? yes"; its id."""
    with database.transaction() as uow:
        found = Dataset(id=new_id("ds"), tenant_id=tenant, name="weather", splits={split: examples})
        uow.session.add(found)
    add_examples(database, found.id, examples=examples, split=split, relations=relations, tenant=tenant)
    return found.id


def add_examples(
    database: Database,
    dataset_id: str,
    *,
    examples: int,
    split: str,
    relations: Sequence[Any] = (),
    gold: bool = False,
    word: str = "sun",
    tenant: str = TENANT,
) -> None:
    """More examples in a split; their ids begin with the split's name unless that is train, their texts with `word`."""
    prefix = "k" if split == "train" else f"{split}-"
    with database.transaction() as uow:
        for number in range(examples):
            uow.session.add(
                ExampleRow(
                    tenant_id=tenant,
                    dataset_id=dataset_id,
                    split=split,
                    key=f"{prefix}{number}",
                    digest=f"digest of {split} {number}",
                    input=f"{word} {number:02}? ",
                    target="yes",
                    choices=["yes", "no"],
                    relations=list(relations),
                    unresolved=[],
                    gold=gold,
                )
            )


def empty_target(database: Database, dataset_id: str) -> None:
    """One more example, of which there is nothing to label."""
    add_examples(database, dataset_id, examples=1, split="bare")
    with database.transaction() as uow:
        bare = ExampleRow.dataset_id == dataset_id, ExampleRow.split == "bare"
        uow.session.execute(update(ExampleRow).where(*bare).values(target="", split="train"))


def prior(database: Database, *, tenant: str = TENANT) -> str:
    """A prior with a rule; its id."""
    with database.transaction() as uow:
        row = PriorRow(
            id=new_id("prior"), tenant_id=tenant, name="weather", version=new_id("v"), sha256="0" * 64, body=PRIOR
        )
        uow.session.add(row)
    return row.id


def annotation_job(database: Database, *, examples: int = 3, teacher: str = "rule") -> Job:
    """A queued annotation job over a dataset of its own."""
    return annotation_job_on(database, dataset(database, examples=examples), teacher=teacher)


def annotation_job_on(
    database: Database,
    dataset_id: str,
    *,
    teacher: str = "rule",
    splits: Sequence[str] = ("train",),
    votes: int = 1,
    demonstrations: DemonstrationSource | None = None,
    budget_tokens: int | None = None,
) -> Job:
    """A queued annotation job over splits of a dataset."""
    prior_id = prior(database)
    with database.transaction() as uow:
        return annotations.submit(
            uow,
            tenant_id=TENANT,
            dataset_id=dataset_id,
            prior_id=prior_id,
            teacher=teacher,
            splits=splits,
            votes=votes,
            demonstrations=demonstrations,
            budget_tokens=budget_tokens,
        )


def training_job(
    database: Database, *, dry_run: bool = False, method: Method = Method.SFT, labels: LabelSource | None = None
) -> Job:
    """A queued training job over a dataset of its own, whose `iid` split is evaluated."""
    dataset_id = dataset(database, relations=[RELATION])
    add_examples(database, dataset_id, examples=2, split="iid")
    with database.transaction() as uow:
        return trainings.submit(
            uow,
            tenant_id=TENANT,
            dataset_id=dataset_id,
            base=BASE,
            config=TrainingConfig(method=method),
            labels=labels or LabelSource(),
            eval_splits=["iid"],
            dry_run=dry_run,
            name="a run",
        )


def claimed(database: Database, job_id: str, *, lease: float = 60.0, max_attempts: int = 3) -> Claim:
    """A claim on a job that must be free."""
    with database.transaction() as uow:
        claim = leases.claim(uow, job_id=job_id, lease=lease, max_attempts=max_attempts)
    assert claim is not None
    return claim


def run_out(database: Database, job_id: str) -> None:
    """Let the lease of a job have ended a second ago."""
    with database.transaction() as uow:
        uow.session.execute(update(Job).where(Job.id == job_id).values(lease_until=clock() - 1.0))


def take_back(database: Database, job_id: str) -> None:
    """Let the lease of a job have run out and be taken back at once: a heart that still beats cannot save it."""
    with database.transaction() as uow:
        uow.session.execute(update(Job).where(Job.id == job_id).values(lease_until=clock() - 1.0))
        leases.expire(uow, max_attempts=100)


def wake(database: Database, job_id: str) -> None:
    """Let the time that a job waits for have come a second ago."""
    with database.transaction() as uow:
        uow.session.execute(update(Job).where(Job.id == job_id).values(not_before=clock() - 1.0))


def row(database: Database, job_id: str) -> Job:
    """The job as it is now."""
    with database.reading() as session:
        found = session.get(Job, job_id)
    assert found is not None
    return found


def told(database: Database, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """The job's history: type and data of each event."""
    with database.reading() as session:
        events = events_after(session, tenant_id=TENANT, job_id=job_id, limit=10_000)
    return [(event.type, event.data) for event in events]


def promised(database: Database) -> list[str]:
    """The jobs in the outbox, oldest first. Nothing leaves it when the database has no publisher."""
    with database.reading() as session:
        return list(session.scalars(select(OutboxRow.job_id).order_by(OutboxRow.id)))


def label(outcome: str = "labelled", **changed: Any) -> dict[str, Any]:
    """An annotation as annotator.wire writes it, of an example of `dataset`."""
    phrases = {"grounding": "exact", "candidates": 1, "doubtful": False}
    relation = {
        "effect": {"start": 8, "end": 11, "quote": "yes", **phrases},
        "causes": [{"start": 0, "end": 3, "quote": "sun", **phrases}],
    }
    return {
        "outcome": outcome,
        "relations": [relation] if outcome == "labelled" else [],
        "unresolved": [],
        "raw_reply": "{}",
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        "prompt_hash": "h" * 64,
        "detail": "",
        **changed,
    }
