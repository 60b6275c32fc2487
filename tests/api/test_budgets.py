"""Budgets of annotation jobs over HTTP."""

from typing import Any

import pytest

from core import budgets, leases
from core.domain.spending import Cost
from tests.api.conftest import Api


def _post(api: Api, **body: Any) -> Any:
    about = {"dataset_id": api.dataset(), "prior_id": api.prior(), "teacher": "rule"}
    return api.client.post("/v1/annotation-jobs", json=about | body)


def _pause(api: Api, job_id: str) -> None:
    with api.database.transaction() as uow:
        claim = leases.claim(uow, job_id=job_id, lease=60, max_attempts=3)
        assert claim is not None
        assert budgets.reserve(uow, claim, [Cost(60), Cost(60)])[1] is None
        budgets.write_off(uow, claim)
        budgets.pause(uow, claim, Cost(60))


def test_a_job_shows_what_it_may_cost_and_did(api: Api) -> None:
    job = _post(api, budget_tokens=100).json()
    assert (job["request"]["budget_tokens"], job["request"]["budget_usd"]) == (100, None)
    _pause(api, job["id"])
    job = api.client.get(job["links"]["self"]).json()
    assert job["state"] == "paused_budget"
    money = ("budget_tokens", "budget_usd", "spent_tokens", "spent_usd", "reserved_tokens", "reserved_usd")
    assert [job["progress"][name] for name in money] == [100, None, 60, 0.0, 0, 0.0]


def test_a_paused_job_goes_on_when_its_budget_is_raised(api: Api) -> None:
    job = _post(api, budget_tokens=100).json()
    _pause(api, job["id"])
    low = api.client.post(job["links"]["budget"], json={"budget_tokens": 59})
    assert (low.status_code, low.json()["tokens"]) == (409, 60)
    before = len(api.nudges)
    raised = api.client.post(job["links"]["budget"], json={"budget_tokens": 200}).json()
    assert (raised["state"], raised["progress"]["budget_tokens"]) == ("queued", 200)
    assert len(api.nudges) == before + 1


def test_a_job_without_a_budget_gets_none_later(api: Api) -> None:
    assert api.client.post(_post(api).json()["links"]["budget"], json={"budget_tokens": 9}).status_code == 409


@pytest.mark.parametrize("body", [{"budget_tokens": 0}, {"budget_usd": 0}, {"budget_usd": "NaN"}, {"budget_usd": 1.0}])
def test_a_budget_must_be_positive_and_in_a_currency_the_teacher_has(api: Api, body: dict[str, Any]) -> None:
    answer = _post(api, **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
