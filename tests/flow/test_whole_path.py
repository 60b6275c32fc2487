"""Raw data in over REST, labels from a teacher, CAT fine-tuning, a finished adapter out: on the real services."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import stg
from tests.flow.client import Client
from tests.flow.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TRAIN, OOD = 128, 48


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with service.http() as http:
        yield Client(http)


@pytest.fixture(scope="module")
def dataset(client: Client) -> str:
    dataset: str = client.post("/datasets", json={"name": "risk"})["id"]
    client.upload(dataset, "train", stg.generate(TRAIN, seed=11))
    client.upload(dataset, "ood", stg.generate(OOD, seed=12, ood=True))
    return dataset


@pytest.fixture(scope="module")
def prior(client: Client) -> str:
    body = (ROOT / "examples/priors/stg.yaml").read_bytes()
    prior: str = client.post("/priors", content=body, headers={"Content-Type": "application/yaml"})["id"]
    return prior


@pytest.fixture(scope="module")
def labels(client: Client, dataset: str, prior: str) -> dict[str, Any]:
    job = client.post("/annotation-jobs", json={"dataset_id": dataset, "prior_id": prior, "teacher": "fake"})
    return client.finished(f"/annotation-jobs/{job['id']}")


def test_a_teacher_over_http_labels_every_example(client: Client, labels: dict[str, Any]) -> None:
    assert labels["state"] == "succeeded", labels
    assert labels["counts"]["outcomes"] == {"labelled": TRAIN}
    truth = {example.id: example for example in stg.generate(TRAIN, seed=11)}
    exported = client.http.get(f"/annotation-jobs/{labels['id']}/export").raise_for_status().text.splitlines()
    assert len(exported) == TRAIN
    for line in map(json.loads, exported):
        example = truth[line["id"]]
        [relation] = line["relations"]
        causes = {example.text[cause["start"] : cause["end"]] for cause in relation["causes"]}
        assert causes == {cause.of(example.text) for cause in example.relations[0].causes}


def test_the_export_can_be_posted_back(client: Client, labels: dict[str, Any]) -> None:
    exported = client.http.get(f"/annotation-jobs/{labels['id']}/export").raise_for_status().content
    copy = client.post("/datasets", json={"name": "copy"})["id"]
    answer = client.post(f"/datasets/{copy}/examples", params={"split": "train"}, content=exported,
                         headers={"Content-Type": "application/x-ndjson"})  # fmt: skip
    assert answer["stored"] == TRAIN
    assert answer["relations"] == TRAIN


def test_the_same_job_twice_asks_the_teacher_nothing(
    client: Client, service: Service, labels: dict[str, Any], dataset: str, prior: str
) -> None:
    teacher = json.loads(service.environment["CAUSEWAY_TEACHERS"])["fake"]["base_url"].removesuffix("/v1")
    before = len(httpx.get(f"{teacher}/calls").json())
    again = client.post("/annotation-jobs", json={"dataset_id": dataset, "prior_id": prior, "teacher": "fake"})
    assert client.finished(f"/annotation-jobs/{again['id']}")["counts"]["outcomes"] == {"labelled": TRAIN}
    assert before >= TRAIN
    assert len(httpx.get(f"{teacher}/calls").json()) == before


def test_a_teacher_that_cannot_be_reached_fails_the_job_with_its_name(client: Client, dataset: str, prior: str) -> None:
    job = client.post("/annotation-jobs", json={"dataset_id": dataset, "prior_id": prior, "teacher": "nobody"})
    ended = client.finished(f"/annotation-jobs/{job['id']}")
    assert (ended["state"], ended["error"]["code"]) == ("failed", "teacher_unreachable")


def test_a_plan_is_a_training_job_that_stops_early(client: Client, labels: dict[str, Any], dataset: str) -> None:
    job = client.post("/training-jobs", json=_training(dataset, labels["id"]) | {"dry_run": True})
    plan = client.finished(f"/training-jobs/{job['id']}")["result"]["plan"]
    assert plan["examples"] == TRAIN
    assert plan["supervised_rows"] >= TRAIN
    assert plan["tokens"] > 40 * TRAIN


@pytest.mark.parametrize("method", ["sft", "cat"])
def test_training_ends_with_an_adapter_that_loads(
    client: Client, service: Service, labels: dict[str, Any], dataset: str, method: str, tmp_path: Path
) -> None:
    job = client.post("/training-jobs", json=_training(dataset, labels["id"], method))
    ended = client.finished(f"/training-jobs/{job['id']}")
    assert ended["state"] == "succeeded", ended
    events = client.get(f"/training-jobs/{job['id']}/events", limit=100)["items"]
    assert {"plan", "step", "evaluation", "finished"} <= {event["type"] for event in events}
    adapter = client.download(ended["result"]["adapter_id"], tmp_path / "adapter")
    data = tmp_path / "ood.jsonl"
    examples = [
        {"input": e.input, "target": e.target, "choices": list(e.choices)} for e in stg.generate(OOD, seed=12, ood=True)
    ]
    data.write_text("\n".join(map(json.dumps, examples)))
    # A fresh process with stock PEFT and stock attention: what a user of the adapter has.
    subprocess.run(
        [sys.executable, "-m", "trainer.evaluate", "--base", "builtin:small", "--adapter", str(adapter),
         "--data", str(data), "--out", str(tmp_path / "scores.json")],
        check=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "CAUSEWAY_CACHE": service.environment["CAUSEWAY_CACHE"]},
        cwd=ROOT,
    )  # fmt: skip
    measured = json.loads((tmp_path / "scores.json").read_text())
    assert measured["splits"]["ood"]["accuracy"] == pytest.approx(ended["result"]["metrics"]["ood"]["accuracy"])


def test_an_adapter_that_is_deleted_is_gone(client: Client, labels: dict[str, Any], dataset: str) -> None:
    job = client.post("/training-jobs", json=_training(dataset, labels["id"], "sft"))
    adapter = client.finished(f"/training-jobs/{job['id']}")["result"]["adapter_id"]
    assert client.http.delete(f"/adapters/{adapter}").status_code == httpx.codes.NO_CONTENT
    assert client.http.get(f"/adapters/{adapter}").status_code == httpx.codes.NOT_FOUND
    assert client.http.get(f"/adapters/{adapter}/download").status_code == httpx.codes.NOT_FOUND


def test_a_cancelled_training_leaves_no_adapter(client: Client, labels: dict[str, Any], dataset: str) -> None:
    request = _training(dataset, labels["id"])
    request["config"] |= {"epochs": 100}
    job = client.post("/training-jobs", json=request)
    path = f"/training-jobs/{job['id']}"
    while not any(e["type"] == "step" for e in client.get(f"{path}/events", limit=100)["items"]):
        assert client.get(path)["state"] in ("queued", "running")
    client.post(f"{path}/cancel")
    assert client.finished(path)["state"] == "cancelled"
    assert all(a["job_id"] != job["id"] for a in client.get("/adapters", limit=100)["items"])


def _training(dataset: str, labels: str, method: str = "cat") -> dict[str, Any]:
    return {
        "dataset_id": dataset,
        "base_model": "builtin:small",
        "labels": {"annotation_jobs": [labels]},
        "eval_splits": ["ood"],
        "config": {"method": method, "epochs": 2, "batch_size": 32, "learning_rate": 2e-3, "log_every": 1},
    }
