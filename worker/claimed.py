"""What all work on a job has in common: claim it, keep the lease, and turn whatever goes wrong into a state."""

from collections.abc import Callable
from typing import Any

import structlog

from core import leases
from core.domain.lifecycle import JobState
from core.errors import CausewayError, LeaseLost, TeacherUnreachable, Unavailable
from core.leases import Claim
from core.logs import job_context
from worker.heart import Heart
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

Work = Callable[[Runtime, Claim, Heart], None]


def work_on(runtime: Runtime, job_id: str, work: Work) -> None:
    """Claim a job and do `work` on it, which must end, release or publish it. Does nothing if it is not to be had.

    An error of ours fails the job with the error's code; a bug fails it as `internal`. When the database is away the
    lease is left to run out, and when it was lost nothing more is written.
    """
    if runtime.draining.is_set():
        return
    rhythm = runtime.settings.jobs
    with runtime.database.transaction() as uow:
        claim = leases.claim(uow, job_id=job_id, lease=rhythm.lease, max_attempts=rhythm.max_attempts)
    if claim is None:
        return
    job_context(job_id=claim.job_id, tenant_id=claim.tenant_id, epoch=claim.epoch)
    with Heart(runtime.database, claim, rhythm) as heart:
        try:
            _attempt(runtime, claim, heart, work)
        except LeaseLost:
            _log.warning("lease_lost")
        except Unavailable as exc:
            _log.warning("job_abandoned", reason=exc.message)
        finally:
            job_context()


def _attempt(runtime: Runtime, claim: Claim, heart: Heart, work: Work) -> None:
    try:
        work(runtime, claim, heart)
    except LeaseLost:
        raise
    except TeacherUnreachable as exc:
        _fail(runtime, claim, _facts(exc))
    except Unavailable:
        raise
    except CausewayError as exc:
        _fail(runtime, claim, _facts(exc))
    except Exception:  # noqa: BLE001 (the outermost place that knows the job)
        # A bug must not be tried again by every worker in turn.
        _log.exception("job_broke")
        _fail(runtime, claim, {"code": CausewayError.code, "message": "an internal error; the logs say more"})


def _fail(runtime: Runtime, claim: Claim, error: dict[str, Any]) -> None:
    with runtime.database.transaction() as uow:
        leases.finish(uow, claim, JobState.FAILED, error=error)
    _log.info("job_failed", code=error["code"])


def _facts(error: CausewayError) -> dict[str, Any]:
    return {**error.facts, "code": error.code, "message": error.message}
