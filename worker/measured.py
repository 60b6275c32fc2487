"""What a finished annotation job says of its labels, besides their number."""

from typing import Any

from annotator.agreement import Agreement
from core import quality
from core.db.session import Session
from core.leases import Claim


def against_gold(session: Session, claim: Claim) -> dict[str, Any]:
    """How the labels compare with those of humans, where the job has gold examples."""
    agreement = Agreement()
    for predicted, expected in quality.gold_labels(session, tenant_id=claim.tenant_id, job_id=claim.job_id):
        agreement.add(predicted, expected)
    return {"gold": agreement.to_json()} if agreement.examples else {}
