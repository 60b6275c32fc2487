import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.byte_ranges import RangeNotSatisfiable, parse_range
from tests.api.conftest import Api

CONTENT = bytes(range(256)) * 1_000


@pytest.fixture
def adapter_id(api: Api, tmp_path: Path) -> str:
    return api.adapter(CONTENT, tmp_path, api.training_job())


def test_an_adapter_is_listed_and_shown(api: Api, adapter_id: str) -> None:
    shown = api.client.get(f"/v1/adapters/{adapter_id}").json()
    assert (shown["id"], shown["size"], shown["method"]) == (adapter_id, len(CONTENT), "sft")
    assert shown["metrics"] == {"ood": {"accuracy": 0.9}}
    assert api.client.get("/v1/adapters").json() == {"items": [shown], "next": None}
    assert shown["links"]["download"] == f"/v1/adapters/{adapter_id}/download"


def test_a_download_is_whole_and_named_by_its_sum(api: Api, adapter_id: str) -> None:
    answer = api.client.get(f"/v1/adapters/{adapter_id}/download")
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert adapter_id in answer.headers["content-disposition"]
    head = api.client.head(f"/v1/adapters/{adapter_id}/download")
    for name in ("etag", "content-length", "accept-ranges", "content-type"):
        assert head.headers[name] == answer.headers[name]
    assert head.content == b""
    cached = api.client.get(f"/v1/adapters/{adapter_id}/download", headers={"If-None-Match": answer.headers["etag"]})
    assert (cached.status_code, cached.content) == (304, b"")


def test_a_download_that_broke_off_goes_on(api: Api, adapter_id: str) -> None:
    url = f"/v1/adapters/{adapter_id}/download"
    etag = api.client.head(url).headers["etag"]
    rest = api.client.get(url, headers={"Range": "bytes=200000-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, CONTENT[200_000:])
    assert rest.headers["content-range"] == "bytes 200000-255999/256000"
    assert rest.headers["content-length"] == "56000"
    changed = api.client.get(url, headers={"Range": "bytes=200000-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, CONTENT)
    beyond = api.client.get(url, headers={"Range": "bytes=256000-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */256000"


def test_a_deleted_adapter_is_gone_with_its_archive(api: Api, adapter_id: str) -> None:
    assert len(list(api.blobs.keys("adapters"))) == 1
    assert api.client.delete(f"/v1/adapters/{adapter_id}").status_code == 204
    assert list(api.blobs.keys("adapters")) == []
    for path in ("", "/download"):
        assert api.client.get(f"/v1/adapters/{adapter_id}{path}").status_code == 404


def test_deleting_its_job_leaves_the_adapter(api: Api, tmp_path: Path) -> None:
    job_id = api.training_job()
    adapter_id = api.adapter(CONTENT, tmp_path, job_id)
    api.client.post(f"/v1/training-jobs/{job_id}/cancel")
    assert api.client.delete(f"/v1/training-jobs/{job_id}").status_code == 204
    assert api.client.get(f"/v1/adapters/{adapter_id}").json()["job_id"] is None


@given(first=st.none() | st.integers(0, 30), last=st.none() | st.integers(0, 30), size=st.integers(1, 20))
def test_a_range_is_the_bytes_that_slicing_would_give(first: int | None, last: int | None, size: int) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    content = bytes(range(size))
    if first is None:
        wanted = None if last is None else content[-last:] if last else b""
    elif last is not None and last < first:
        wanted = None
    else:
        wanted = content[first : None if last is None else last + 1]
    if wanted == b"":
        with pytest.raises(RangeNotSatisfiable):
            parse_range(header, size)
        return
    found = parse_range(header, size)
    assert (None if found is None else content[found.start : found.end]) == wanted


@pytest.mark.parametrize("header", [None, "", "bytes", "items=0-1", "bytes=0-1,3-4", "bytes=a-b", "bytes=--1"])
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None
