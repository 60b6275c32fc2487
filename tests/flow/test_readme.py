"""The README's walk through the API, typed in as it stands."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def test_the_walk_ends_with_an_unpacked_adapter(service: Service, tmp_path: Path) -> None:
    _require("bash", "curl", "jq")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "walk.sh").write_text("set -euo pipefail\n" + _walk(service))
    walked = subprocess.run(
        ["bash", "walk.sh"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert walked.returncode == 0, walked.stdout[-3000:] + walked.stderr[-3000:]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size > 0
    assert '"state": "failed"' not in walked.stdout


def _walk(service: Service) -> str:
    """The shell blocks between the README's walk marks, with the address and key of the service under test."""
    text = (ROOT / "README.md").read_text()
    walk = text[text.index("<!-- walk:") : text.index("<!-- walk: end -->")]
    script = "\n".join(re.findall(r"```bash\n(.*?)```", walk, re.DOTALL))
    for placeholder, real in (("http://127.0.0.1:8000", service.url), ("cw_...", service.key)):
        assert placeholder in script
        script = script.replace(placeholder, real)
    return script


def _require(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"the README's walk needs {', '.join(missing)}")
    if missing:
        pytest.skip(f"the README's walk needs {', '.join(missing)}")
