"""Batch mode asked for over HTTP."""

from dataclasses import replace
from typing import Any

import pytest

from core.settings import TeacherSettings
from tests.api.conftest import Api

LINES = b"\n".join(b'{"id": "%d", "input": "Sun shines. Warm? ", "target": "yes"}' % n for n in range(5))


@pytest.fixture
def api(api: Api) -> Api:
    """With a teacher that is asked over HTTP."""
    gpt = TeacherSettings(base_url="http://127.0.0.1:9/v1", model="m", prompt_price=2.0, batch_discount=0.25)
    settings = api.settings.model_copy(update={"teachers": api.settings.teachers | {"gpt": gpt}})
    api.app.state.services = replace(api.app.state.services, settings=settings)
    return api


def asked(api: Api, **changed: Any) -> Any:
    body = {"dataset_id": api.dataset(LINES), "prior_id": api.prior(), "teacher": "gpt", "mode": "batch"}
    return api.client.post("/v1/annotation-jobs", json=body | changed)


def test_the_mode_is_part_of_the_request(api: Api) -> None:
    answer = asked(api)
    assert (answer.status_code, answer.json()["request"]["mode"]) == (202, "batch")
    assert asked(api, mode="live").json()["request"]["mode"] == "live"


@pytest.mark.parametrize(
    ("changed", "field"), [({"votes": 3}, "votes"), ({"teacher": "rule"}, "mode"), ({"mode": "later"}, "mode")]
)
def test_what_no_batch_can_do_is_refused(api: Api, changed: dict[str, Any], field: str) -> None:
    refused = asked(api, **changed)
    assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_a_plan_counts_the_discount(api: Api) -> None:
    live, batch = (asked(api, mode=mode, dry_run=True).json() for mode in ("live", "batch"))
    assert live["tokens"] == batch["tokens"] > 0
    assert batch["usd"] == pytest.approx(live["usd"] * 0.75, abs=2e-6)
