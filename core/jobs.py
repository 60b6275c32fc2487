"""What a nudge is. The row is the job; a nudge is a hint that it may have work, and may be lost, doubled or late."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class JobKind(StrEnum):
    """Which worker a job needs."""

    ANNOTATION = "annotation"
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Nudge:
    """Job `job_id` may have work. Carries nothing that the row does not know better."""

    kind: JobKind
    job_id: str


# Sends a nudge or raises core.errors.Unavailable; the Celery and in-process implementations sit at the edges.
Publish = Callable[[Nudge], None]
