"""Any order of requests, claims, losses and ends: the states stay legal, and the history tells the row."""

import itertools
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from core import annotation_items, budgets, leases
from core.db.base import Base
from core.db.models import Job
from core.db.session import Database
from core.domain.lifecycle import TERMINAL, JobState, can_move
from core.domain.spending import Cost
from core.errors import Conflict, LeaseLost
from core.job_store import cancel_job
from core.jobs import JobKind
from core.leases import Claim
from tests import scenes

_ATTEMPTS = 5


class Jobs(RuleBasedStateMachine):
    """Up to a few annotation jobs, worked on and meddled with through the functions that the service uses."""

    jobs: Bundle[str] = Bundle("jobs")
    claims: Bundle[Claim] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'jobs.db'}")
        Base.metadata.create_all(self.database.engine)
        self.dataset = scenes.dataset(self.database, examples=4)
        self.seen: dict[str, JobState] = {}
        self.ended: dict[str, int] = {}  # version of each job when it ended
        self.epochs: dict[str, int] = {}

    def teardown(self) -> None:
        self.database.dispose()
        self.folder.cleanup()

    @precondition(lambda self: len(self.seen) < 2)  # few jobs, so that much happens to each
    @rule(target=jobs)
    def submit(self) -> str:
        job = scenes.annotation_job_on(self.database, self.dataset, budget_tokens=1)
        self.seen[job.id] = JobState.QUEUED
        return job.id

    @rule(target=claims, job_id=jobs)
    def claim(self, job_id: str) -> object:
        with self.database.transaction() as uow:
            claim = leases.claim(uow, job_id=job_id, lease=1000, max_attempts=_ATTEMPTS)
        if claim is None:
            return multiple()
        assert claim.epoch > self.epochs.get(job_id, 0)
        self.epochs[job_id] = claim.epoch
        return claim

    @rule(claim=claims)
    def beat(self, claim: Claim) -> None:
        self._as_owner(claim, lambda uow: leases.heartbeat(uow, claim, lease=1000))

    @rule(claim=claims, outcome=st.sampled_from(["labelled", "empty", "failed"]))
    def label(self, claim: Claim, outcome: str) -> None:
        def write(uow):
            items = annotation_items.pending_items(uow.session, claim, after=0, limit=1)
            labels = {item.id: scenes.label(outcome) for item in items}
            annotation_items.store_labels(uow, claim, labels, items_per_second=1)

        self._as_owner(claim, write)

    @rule(claim=consumes(claims))
    def release(self, claim: Claim) -> None:
        self._as_owner(claim, lambda uow: leases.release(uow, claim))

    @rule(claim=claims)
    def complete(self, claim: Claim) -> None:
        self._as_owner(claim, lambda uow: annotation_items.complete(uow, claim))

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        error = {"code": "internal", "message": "broken"}
        self._as_owner(claim, lambda uow: leases.finish(uow, claim, JobState.FAILED, error=error))

    @rule(claim=claims, tokens=st.integers(1, 4))
    def pause(self, claim: Claim, tokens: int) -> None:
        self._as_owner(claim, lambda uow: budgets.pause(uow, claim, Cost(tokens)))

    @rule(job_id=jobs, tokens=st.integers(1, 3))
    def change_budget(self, job_id: str, tokens: int) -> None:
        before = JobState(scenes.row(self.database, job_id).state)
        try:
            with self.database.transaction() as uow:
                budgets.change_budget(uow, tenant_id=scenes.TENANT, job_id=job_id, tokens=tokens)
        except Conflict:
            assert before in TERMINAL
        else:
            assert scenes.row(self.database, job_id).state != JobState.PAUSED_BUDGET

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        before = JobState(scenes.row(self.database, job_id).state)
        try:
            with self.database.transaction() as uow:
                cancel_job(uow, tenant_id=scenes.TENANT, kind=JobKind.ANNOTATION, job_id=job_id)
        except Conflict:
            assert before in (JobState.SUCCEEDED, JobState.FAILED)

    @rule(job_id=jobs)
    def lose_the_worker(self, job_id: str) -> None:
        if scenes.row(self.database, job_id).lease_until is not None:
            scenes.run_out(self.database, job_id)

    @rule(target=claims, job_id=jobs)
    def take_over(self, job_id: str) -> object:
        self.lose_the_worker(job_id)
        return self.claim(job_id)

    @rule()
    def expire(self) -> None:
        with self.database.transaction() as uow:
            leases.expire(uow, max_attempts=_ATTEMPTS)

    @invariant()
    def states_are_legal_and_final(self) -> None:
        for job_id, before in self.seen.items():
            job = scenes.row(self.database, job_id)
            now = JobState(job.state)
            # A rule may take two steps at once: queued, or running, to cancelling to cancelled.
            path = [JobState(data["state"]) for kind, data in scenes.told(self.database, job_id) if kind == "state"]
            assert all(can_move(old, new) for old, new in itertools.pairwise(path))
            assert path[-1] is now
            if before in TERMINAL:
                assert now is before
                assert job.version == self.ended[job_id]
            if now in TERMINAL:
                assert job.lease_until is None
                assert job.finished_at is not None
                self.ended[job_id] = job.version
            self.seen[job_id] = now

    @invariant()
    def history_tells_the_row(self) -> None:
        for job_id in self.seen:
            assert _replayed(scenes.told(self.database, job_id)) == _visible(scenes.row(self.database, job_id))

    def _as_owner(self, claim: Claim, write) -> None:
        job = scenes.row(self.database, claim.job_id)
        owner = job.epoch == claim.epoch and job.lease_until is not None
        try:
            with self.database.transaction() as uow:
                write(uow)
        except LeaseLost:
            assert not owner
        else:
            assert owner


def _replayed(told: list[tuple[str, dict]]) -> dict:
    found = {"state": None, "done": 0, "attempts": 0, "error": None, "result": None, "version": 0}
    for kind, data in told:
        found["version"] += 1
        if kind == "state":
            found |= data
        elif kind == "progress":
            found["done"] = data["done"]
        elif kind == "worker_lost":
            found["attempts"] = data["attempts"]
    return found


def _visible(job: Job) -> dict:
    return {name: getattr(job, name) for name in ("state", "done", "attempts", "error", "result", "version")}


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
