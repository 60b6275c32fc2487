"""Values that break databases and parsers, in every place of every request: whatever comes, it is not our fault."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from api.example_lines import LineReader
from core.errors import InvalidInput
from tests.api.conftest import PRIOR, Api

NASTY: list[Any] = [
    None,
    True,
    "",
    "\0",
    "\ud800",
    "\u202e\ufeff",
    "../../etc/passwd",
    "'; DROP TABLE jobs; --",
    "x" * 5_000,
    -1,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("-inf"),
    [],
    {},
    [[]] * 50,
    {"\0": "\0"},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside of JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """JSON with another value at `path`."""
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], by)
    return copy


@pytest.mark.parametrize("path", ["datasets", "priors", "annotation-jobs", "training-jobs"])
def test_in_a_body(postgres_api: Api, path: str) -> None:
    api = postgres_api  # the stricter one of the databases
    dataset_id = api.dataset()
    body: dict[str, Any] = {
        "datasets": {"name": "x"},
        "priors": PRIOR,
        "annotation-jobs": {
            "dataset_id": dataset_id,
            "prior_id": api.prior(),
            "teacher": "rule",
            "splits": ["train"],
            "votes": 1,
            "mode": "live",
            "name": "x",
            "dry_run": True,
        },
        "training-jobs": {
            "dataset_id": dataset_id,
            "base_model": "builtin:small",
            "labels": {"annotation_jobs": ["an_1"], "dataset": False},
            "train_split": "train",
            "eval_splits": ["ood"],
            "config": {"method": "sft", "epochs": 1, "learning_rate": 1e-3, "seed": 0, "objective": {"gamma": 0.1}},
            "name": "x",
            "dry_run": False,
        },
    }[path]
    for place in places(body):
        for nasty in NASTY:
            sent = json.dumps(replaced(body, place, nasty))
            answer = api.client.post(f"/v1/{path}", content=sent, headers={"Content-Type": "application/json"})
            assert answer.status_code < 500, (place, str(nasty)[:50], answer.text)


def test_in_an_upload(postgres_api: Api) -> None:
    """A line is refused with its number, or the database takes it."""
    spans = [{"effect": {"start": 4, "end": 5}, "causes": [{"start": 0, "end": 1}]}]
    line = {"id": "x", "input": "a b ", "target": "c", "choices": ["c", "d"], "relations": spans}
    words = {"input": "a b ", "target": "c", "important": [{"c": ["a", "b"]}]}
    reader = LineReader("train", most_relations=500, loose=False)
    accepted = []
    for whole in (line, words):
        for place in places(whole):
            for number, nasty in enumerate(NASTY):
                sent = json.dumps(replaced(whole, place, nasty)).encode()
                try:
                    reader.read(number, sent)
                except InvalidInput as refused:
                    assert refused.facts["line"] == number  # noqa: PT017 (most are, not all)
                else:
                    accepted.append(sent.replace(b'"id": "x"', b'"id": null'))
    assert len(accepted) > len(NASTY)
    url = f"/v1/datasets/{postgres_api.dataset()}/examples"
    answer = postgres_api.client.post(url, content=b"\n".join(accepted))
    assert answer.status_code == 201, answer.text


def test_in_a_query_and_a_header(postgres_api: Api) -> None:
    api = postgres_api
    dataset_id, job_id = api.dataset(), api.annotation_job()
    queries = {
        f"/v1/datasets/{dataset_id}/examples": ("split", "limit", "cursor"),
        "/v1/annotation-jobs": ("state", "cursor"),
        f"/v1/annotation-jobs/{job_id}/events": ("cursor",),
        f"/v1/annotation-jobs/{job_id}/export": ("split",),
        f"/v1/annotation-jobs/{job_id}/compare": ("with", "limit"),
        "/v1/annotations": ("job_id", "outcome", "unresolved", "reviewed"),
        f"/v1/annotations?job_id={job_id}": ("order", "limit"),
        f"/v1/annotations?job_id={job_id}&order=confidence": ("cursor",),
    }
    cursors = ["WyJleGFtcGxlcyIsIDFd", "WyJleGFtcGxlcyIsIDFlOTld", "WyJleGFtcGxlcyIsIG51bGxd", "bnVsbA"]
    values = [str(nasty).encode("utf-8", "surrogatepass") for nasty in NASTY] + [c.encode() for c in cursors]
    for value in values:
        for url, names in queries.items():
            for name in names:
                path, _, fixed = url.partition("?")
                params = dict(parse_qsl(fixed)) | {name: value.decode("utf-8", "replace")}
                answer = api.client.get(path, params=params)
                assert answer.status_code < 500, (url, name, value[:50], answer.text)
        for header in ("If-None-Match", "Last-Event-ID", "Authorization", "X-Request-Id", "Accept", "Range"):
            clean = value.replace(b"\0", b"").replace(b"\n", b"")[:1000]
            answer = api.client.get(f"/v1/annotation-jobs/{job_id}", headers={header: clean})
            assert answer.status_code < 500, (header, value[:50], answer.text)
