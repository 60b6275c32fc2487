"""Where a base model's files are looked for, and what each way of not finding them is called."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.domain.run_folder import BaseModelSpec
from core.errors import BaseModelMissing
from tests.fake_server import Handler, serving
from trainer.base import small_files
from trainer.model import load_base

ROOT = Path(__file__).parents[2]
COMMIT = "c0ffee" + "0" * 34


def _spec(source: str, revision: str | None = None) -> BaseModelSpec:
    return BaseModelSpec("mine", source, revision)


@pytest.mark.parametrize("source", ["/no/such/folder", "./nowhere", "../nowhere", "~/nowhere-at-all"])
def test_a_missing_folder_never_asks_the_hub(source):
    with pytest.raises(BaseModelMissing, match="no such folder") as caught:
        load_base(_spec(source))
    assert caught.value.facts["source"] == source


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(BaseModelMissing, match=r"no config\.json"):
        load_base(_spec(str(tmp_path)))


class _Hub(Handler):
    """As much of the hub's protocol as snapshot_download speaks: one public model, one gated, the rest unknown."""

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def _answer(self, *, body: bool):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/org/small/tree/"):
            self._send(json.dumps([_listed(name) for name in _published()]).encode(), body=body)
        elif path in ("/api/models/org/small/revision/main", f"/api/models/org/small/revision/{COMMIT}"):
            names = [{"rfilename": name} for name in _published()]
            self._send(json.dumps({"id": "org/small", "sha": COMMIT, "siblings": names}).encode(), body=body)
        elif path.startswith("/org/small/resolve/"):
            name = path.rsplit("/", 1)[1]
            content = _published()[name]
            self._send(content, body=body, headers={"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT})
        elif "/org/small/" in path:
            self._send(b"", status=404, body=body, headers={"X-Error-Code": "RevisionNotFound"})
        elif "/org/gated" in path:
            self._send(b"", status=403, body=body, headers={"X-Error-Code": "GatedRepo"})
        else:
            self._send(b"", status=404, body=body, headers={"X-Error-Code": "RepoNotFound"})

    def _send(self, content: bytes, *, body: bool, status: int = 200, headers: dict[str, str] | None = None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _published() -> dict[str, bytes]:
    return small_files() | {"pytorch_model.bin": b"a pickle", "modeling_evil.py": b"raise SystemExit('ran')"}


def _listed(name: str) -> dict[str, object]:
    content = _published()[name]
    return {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


_LOAD = """
import json, sys
from pathlib import Path
from core.domain.run_folder import BaseModelSpec
from core.errors import BaseModelUnavailable
from trainer.model import load_base
found = []
for source, revision in json.loads(sys.argv[1]):
    try:
        base = load_base(BaseModelSpec("mine", source, revision))
        names = sorted(path.name for path in Path(base.model.name_or_path).iterdir())
        found.append({"revision": base.revision, "files": names})
    except BaseModelUnavailable as exc:
        found.append({"code": exc.code, "error": exc.message})
print(json.dumps(found))
"""


def _load_from_hub(endpoint: str, home: Path, *wanted: tuple[str, str | None]) -> list[dict]:
    """In a process of its own, since the hub's client reads its endpoint once, at import."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", _LOAD, json.dumps(wanted)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_hub_ids(tmp_path):
    """A model is pinned to its commit and only its safe files are fetched; each failure has its own advice."""
    with serving(_Hub) as endpoint:
        found, again, gated, unknown, unpublished = _load_from_hub(
            endpoint,
            tmp_path,
            ("org/small", None),
            ("org/small", COMMIT),
            ("org/gated", None),
            ("org/nothing", None),
            ("org/small", "v9"),
        )
    assert found == {"revision": COMMIT, "files": sorted(n for n in small_files() if n != "README.md")}
    assert again == found
    assert gated["code"] == "base_model_gated"
    assert "HF_TOKEN" in gated["error"]
    assert unknown["code"] == "base_model_unknown"
    assert "neither a folder here nor a model" in unknown["error"]
    assert unpublished["code"] == "base_model_unknown"
    assert "no revision 'v9'" in unpublished["error"]
    # The server is gone: what is in the cache still loads, by commit; anything else names the network.
    cached, unreachable = _load_from_hub(endpoint, tmp_path, ("org/small", COMMIT), ("org/other", None))
    assert cached == found
    assert unreachable["code"] == "hub_unreachable"
    assert "hub cannot be reached" in unreachable["error"]
