"""The steps of the demo, each an ordinary use of the API."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.demo import archive, children
from cli.demo.client import TERMINAL, Client, DemoFailed
from cli.demo.progress import Board
from core.settings import BUILTIN_SMALL

METHODS = ("sft", "cat")
HELD_OUT = ("iid", "ood")

_HELD_OUT = 400  # examples of iid and of ood


@dataclass(frozen=True, slots=True)
class Data:
    """Generated files: one example a line, with the generator's own relations, which only the final judging reads."""

    train: Path
    iid: Path
    ood: Path


def generate_data(folder: Path, *, examples: int, seed: int) -> Data:
    """Train and iid as the shortcuts hold, ood as they are broken; each from a seed of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    data = Data(*(folder / f"{split}.jsonl" for split in ("train", "iid", "ood")))
    children.generate(data.train, n=examples, seed=3 * seed, ood=False)
    children.generate(data.iid, n=_HELD_OUT, seed=3 * seed + 1, ood=False)
    children.generate(data.ood, n=_HELD_OUT, seed=3 * seed + 2, ood=True)
    return data


def create_dataset(client: Client, data: Data) -> str:
    """The id of a new dataset with the three splits, posted without relations."""
    dataset_id = str(client.create("/datasets", {"name": "Spurious Token Game"})["id"])
    for path in (data.train, data.iid, data.ood):
        client.upload(dataset_id, path.stem, _without_relations(path))
    return dataset_id


def label(client: Client, board: Board, *, dataset_id: str, prior_id: str, teacher: str) -> str:
    """The id of an annotation job over the training split that has succeeded."""
    body = {"dataset_id": dataset_id, "prior_id": prior_id, "teacher": teacher, "splits": ["train"]}
    job_id = str(client.create("/annotation-jobs", body)["id"])
    for job in client.follow(f"/annotation-jobs/{job_id}"):
        board.show(teacher, job)
    _require_success("the annotation job", job)
    return job_id


def train(client: Client, board: Board, *, dataset_id: str, labels: str, config: dict[str, Any]) -> dict[str, str]:
    """Train with each method, all else equal and both at once; the adapter's id by method."""
    jobs = {}
    for method in METHODS:
        body = {
            "name": f"demo {method}",
            "dataset_id": dataset_id,
            "base_model": BUILTIN_SMALL,
            "labels": {"annotation_jobs": [labels]},
            "eval_splits": list(HELD_OUT),  # for the adapter's card; the demo's own figures come from fresh processes
            "config": config | {"method": method},
        }
        jobs[method] = str(client.create("/training-jobs", body)["id"])
    streams = {method: client.follow(f"/training-jobs/{job_id}") for method, job_id in jobs.items()}
    adapters: dict[str, str] = {}
    while len(adapters) < len(METHODS):
        for method in METHODS:
            if method in adapters:
                continue
            job = next(streams[method])
            board.show(method, job)
            if job["state"] in TERMINAL:
                _require_success(f"the {method} training", job)
                adapters[method] = str(job["result"]["adapter_id"])
    return adapters


def fetch_adapter(client: Client, adapter_id: str, folder: Path) -> Path:
    """Download an adapter, hold it against its published SHA-256, and unpack it into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder.with_suffix(".tar.gz")
    client.download(f"/adapters/{adapter_id}/download", packed)
    archive.check_sum(packed, str(client.look(f"/adapters/{adapter_id}")["sha256"]))
    archive.unpack(packed, folder)
    return folder


def first_example(path: Path) -> dict[str, Any]:
    """The first line of a file of examples."""
    with path.open(encoding="utf-8") as lines:
        example: dict[str, Any] = json.loads(next(lines))
        return example


def _without_relations(path: Path) -> Iterator[bytes]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            example = json.loads(line)
            del example["relations"]
            yield json.dumps(example, ensure_ascii=False).encode() + b"\n"


def _require_success(what: str, job: dict[str, Any]) -> None:
    if job["state"] != "succeeded":
        error = job.get("error") or {}
        reason = f": {error.get('code')}: {error.get('message')}" if error else ""
        raise DemoFailed(f"{what} {job['id']} ended as {job['state']}{reason}")
