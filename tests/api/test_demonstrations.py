"""Reviewed examples asked for as demonstrations over HTTP, and what a dry run shows of them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from core.settings import TeacherSettings
from tests.api.conftest import Api
from tests.api.test_nasty_values import NASTY, places, replaced

TEXTS = ["Sun shines. Warm? ", "Sun shines on snow. Warm? ", "Fog at sea. Warm? ", "Sun shines on sand. Warm? "]
LINES = "\n".join(json.dumps({"id": str(n), "input": text, "target": "yes"}) for n, text in enumerate(TEXTS)).encode()
ASKED = {"source": "reviewed", "k": 2}


@pytest.fixture
def api(api: Api) -> Api:
    """With a teacher that is asked over HTTP."""
    gpt = TeacherSettings(kind="openai", base_url="http://127.0.0.1:9/v1", model="m", prompt_price=2.0)
    settings = api.settings.model_copy(update={"teachers": api.settings.teachers | {"gpt": gpt}})
    api.app.state.services = replace(api.app.state.services, settings=settings)
    return api


def review(api: Api, dataset_id: str, *keys: str) -> None:
    """Say of these examples that "Sun" is the cause of "yes", or that nothing is."""
    job_id = api.annotation_job(dataset_id)
    api.label(job_id)
    for item in api.client.get("/v1/annotations", params={"job_id": job_id}).json()["items"]:
        if item["example_id"] in keys:
            at = len(item["input"])
            relation = {"effect": {"start": at, "end": at + 3}, "causes": [{"start": 0, "end": 3}]}
            relations = [relation] if item["input"].startswith("Sun") else []
            sent = {"version": 1, "decision": "changed", "relations": relations}
            assert api.client.put(f"/v1/annotations/{item['id']}/review", json=sent).status_code == 200


def ask(api: Api, dataset_id: str, demonstrations: Any = ASKED, **changed: Any) -> Any:
    body = {"dataset_id": dataset_id, "prior_id": api.prior(), "teacher": "gpt", "demonstrations": demonstrations}
    return api.client.post("/v1/annotation-jobs", json=body | changed)


def beside(prompt: list[dict[str, str]]) -> list[tuple[int, str]]:
    """Which of the texts are shown in a prompt, in order, and the answers to them."""
    first_lines = {f"[1] {text.split('. ')[0]}.": number for number, text in enumerate(TEXTS)}
    turns = zip(prompt[3:-1:2], prompt[4:-1:2], strict=True)  # behind the system's and the prior's own
    return [(first_lines[question["content"].splitlines()[1]], answer["content"]) for question, answer in turns]


def test_they_are_part_of_the_request_with_the_reviews_there_are(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    assert ask(api, dataset_id).json()["request"]["demonstrations"] == {
        "source": "reviewed",
        "k": 2,
        "splits": ["train"],
        "reviews_until": 0,
    }
    review(api, dataset_id, "1")
    assert ask(api, dataset_id).json()["request"]["demonstrations"]["reviews_until"] > 0
    assert ask(api, dataset_id, None).json()["request"]["demonstrations"] is None


def test_a_dry_run_shows_them_after_the_priors_own(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    review(api, dataset_id, "0", "1", "2")
    plain, shown = (ask(api, dataset_id, asked, dry_run=True).json() for asked in (None, ASKED))
    assert plain["demonstrations"] is None
    assert shown["demonstrations"] == {"pool": 3, "k": 2, "splits": ["train"]}
    assert shown["tokens"] > plain["tokens"]
    for without, prompt in zip(plain["prompts"], shown["prompts"], strict=True):
        own = len(without) - 1
        assert (prompt[:own], prompt[-1]) == (without[:own], without[-1])
    # Of items 0, 1 and 2: the two that are nearest, the nearest last, and never the item itself.
    assert [[drawn for drawn, _ in beside(prompt)] for prompt in shown["prompts"]] == [[2, 1], [2, 0], [1, 0]]
    [(_, nothing), (_, sun)] = beside(shown["prompts"][0])
    assert json.loads(nothing) == {"relations": []}
    [relation] = json.loads(sun)["relations"]
    assert (relation["effect"]["quote"], [cause["quote"] for cause in relation["causes"]]) == ("yes", ["Sun"])


def test_without_reviews_a_dry_run_says_that_the_priors_own_are_all(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    plain, shown = (ask(api, dataset_id, asked, dry_run=True).json() for asked in (None, ASKED))
    assert shown["demonstrations"] == {"pool": 0, "k": 2, "splits": ["train"]}
    assert (shown["prompts"], shown["tokens"]) == (plain["prompts"], plain["tokens"])


def test_a_dry_run_names_the_splits_that_are_left(api: Api) -> None:
    dataset_id = api.dataset(LINES)
    ood = LINES.replace(b'"id": "', b'"id": "ood')
    assert api.client.post(f"/v1/datasets/{dataset_id}/examples?split=ood", content=ood).status_code == 201
    training = {"dataset_id": dataset_id, "base_model": "builtin:small", "config": {"method": "sft"}}
    assert api.client.post("/v1/training-jobs", json=training | {"eval_splits": ["ood"]}).status_code == 202
    asked = ASKED | {"splits": ["ood", "train", "ood"]}
    assert ask(api, dataset_id, asked, dry_run=True).json()["demonstrations"]["splits"] == ["train"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"k": 0}, "demonstrations.k"),
        ({"k": 9}, "demonstrations.k"),
        ({"source": "gold"}, "demonstrations.source"),
        ({"splits": []}, "demonstrations.splits"),
        ({"until": 3}, "demonstrations.until"),
    ],
)
def test_what_makes_no_sense_is_refused(api: Api, wrong: dict[str, Any], field: str) -> None:
    refused = ask(api, api.dataset(LINES), ASKED | wrong)
    assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_rules_read_none(api: Api) -> None:
    refused = ask(api, api.dataset(LINES), teacher="rule")
    assert (refused.status_code, refused.json()["field"]) == (422, "demonstrations")


@pytest.mark.parametrize("dry_run", [True, False])
def test_nasty_values(api: Api, dry_run: bool) -> None:
    dataset_id, prior_id = api.dataset(LINES), api.prior()
    whole = {"source": "reviewed", "k": 3, "splits": ["train"]}
    body = {"dataset_id": dataset_id, "prior_id": prior_id, "teacher": "gpt", "dry_run": dry_run}
    for place in places(whole):
        for nasty in NASTY:
            sent = json.dumps(body | {"demonstrations": replaced(whole, place, nasty)})
            headers = {"Content-Type": "application/json"}
            answer = api.client.post("/v1/annotation-jobs", content=sent, headers=headers)
            assert answer.status_code < 500, (place, str(nasty)[:50], answer.text)
