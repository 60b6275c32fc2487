"""How fast, and in how much memory, does POST /v1/datasets/{id}/examples take in a large file?

A real `python -m api` process over a Postgres database of its own; the file is streamed to it over loopback, once at a
tenth of the size and once whole, each into a fresh process. Memory is flat when both peaks are alike.

    python -m benchmarks.ingest [--rows 100000] [--postgres URL]

The last line is JSON: {"rows", "seconds", "rows_per_second", "peak_mib", "peak_mib_tenth"}.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import service, stg
from core.domain.run_folder import example_to_json

_CHUNK = 1 << 16  # bytes
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """One measured upload."""

    rows: int
    mib: float  # of the file
    seconds: float  # from the first byte sent to the answer
    peak_mib: float  # highest resident memory of the api process
    idle_mib: float  # the same before the upload

    @property
    def rows_per_second(self) -> float:
        """What is promised: at least 5,000."""
        return self.rows / self.seconds


def main() -> None:
    """Measure both sizes and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--postgres", default=service.POSTGRES, help="a server on which databases may be created")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tenth, whole = (
            measure(rows, arguments.postgres, Path(folder)) for rows in (arguments.rows // 10, arguments.rows)
        )
    table = Table("rows", "file MiB", "seconds", "rows/s", "idle MiB", "peak MiB")
    for one in (tenth, whole):
        figures = (one.mib, one.seconds, one.rows_per_second, one.idle_mib, one.peak_mib)
        table.add_row(f"{one.rows:,}", *(f"{figure:,.1f}" for figure in figures))
    Console().print(table)
    report = {
        "rows": whole.rows,
        "seconds": round(whole.seconds, 3),
        "rows_per_second": round(whole.rows_per_second),
        "peak_mib": round(whole.peak_mib, 1),
        "peak_mib_tenth": round(tenth.peak_mib, 1),
    }
    print(json.dumps(report))


def measure(rows: int, postgres: str, folder: Path) -> Upload:
    """Upload `rows` examples to a fresh api process over an empty database."""
    file = folder / f"{rows}.ndjson"
    with file.open("w") as lines:
        for example in stg.generate(rows, seed=1):
            lines.write(json.dumps(example_to_json(example)) + "\n")
    with (
        service.database(postgres) as url,
        service.api(service.environment(url, "memory://", folder)) as (process, http),
    ):
        dataset = http.post("/v1/datasets", json={"name": "ingest"}).raise_for_status().json()["id"]
        idle = _peak_mib(process)
        begun = time.perf_counter()
        answer = http.post(f"/v1/datasets/{dataset}/examples", content=_chunks(file)).raise_for_status().json()
        seconds = time.perf_counter() - begun
        if answer["stored"] != rows:
            raise SystemExit(f"stored {answer['stored']} of {rows}")
        return Upload(rows, file.stat().st_size / _MIB, seconds, _peak_mib(process), idle)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            yield chunk


def _peak_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
