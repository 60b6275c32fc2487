"""How much of a teacher's capacity does the service use, what does an item cost it, how soon is it back after a storm?

A fake teacher on loopback, api, relay and one annotation worker, each a process, on Postgres and Redis. Concurrency 64:

    fixed      every reply takes 1 s
    lognormal  mean 1 s, coefficient of variation 0.5
    storm      replies take 1 s; after 10 s every call gets a 429, for 10 s
    quick      every reply takes 20 ms: what is left is the worker's own time
    published  `lognormal` again, from a thread pool of default size in waves of 500, as the published scripts do

    python -m benchmarks.annotation_throughput [--scale 0.2] [--items 6400] [--only quick] [--postgres URL]

`--scale` shortens the seconds above (but not the 20 ms). Efficiency is replies a second over concurrency / mean
latency, ramp and tail included. The last line is JSON: {"efficiency" (the lower of fixed and lognormal),
"overhead_ms" (CPU of the worker an item, of quick), "recovery_s" (from the storm's last 429 to 90 % of the rate before
it), "published_efficiency"}; null for what was not run. On a machine with other work only overhead_ms can be trusted.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from annotator.prior import prior_from_json
from annotator.prompts import render
from benchmarks import service, stg
from benchmarks.throughput.calls import Call, efficiency, recovery
from benchmarks.throughput.published import label_in_waves
from benchmarks.throughput.teacher import Manner
from core.domain.annotation import Example

_CONCURRENCY = 64
_PRIOR = Path(__file__).parents[1] / "examples" / "priors" / "stg.yaml"
_RUNS = ("fixed", "lognormal", "storm", "quick", "published")
_PUBLISHED_ITEMS = 500  # one wave: it is slow, and the next is like it
_STORM_ITEMS = 60  # in multiples of the concurrency: about as many seconds of work


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to; None where it does not apply."""

    run: str
    items: int
    seconds: float
    efficiency: float
    overhead_ms: float | None = None  # CPU of the worker, user and system, an item
    recovery_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """The running service and its teacher."""

    http: httpx.Client
    teacher: httpx.Client
    worker_pid: int
    prior_id: str

    def calls(self, model: str) -> list[Call]:
        """What the teacher saw of a model's calls."""
        return [Call(*call) for call in self.teacher.get(f"/calls/{model}").raise_for_status().json()]


def main() -> None:
    """Run, print, sum up."""
    options = _options()
    results = []
    with _scene(options) as scene:
        for run in options.only or _RUNS:
            results.append(_published(scene) if run == "published" else _job(scene, run, options))
            print(results[-1], f"load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    Console().print(_table(results))
    print(json.dumps(_summary(results)))


def _job(scene: Scene, run: str, options: argparse.Namespace) -> Result:
    """Label a dataset of its own through the service, and see what the teacher saw."""
    items = _STORM_ITEMS * _CONCURRENCY if run == "storm" else options.items
    before = _cpu_seconds(scene.worker_pid)
    job = _post(scene, "/v1/annotation-jobs", dataset_id=_dataset(scene, items), prior_id=scene.prior_id, teacher=run)
    while job["state"] in ("queued", "running"):
        time.sleep(0.5)
        job = scene.http.get(job["links"]["self"]).raise_for_status().json()
    if job["counts"]["outcomes"] != {"labelled": items}:
        raise SystemExit(f"{run}: {job['state']}, {job['counts']}, {job['error']}")
    cpu = _cpu_seconds(scene.worker_pid) - before
    calls = scene.calls(run)
    return Result(
        run,
        items,
        seconds=max(call.answered for call in calls) - min(call.came for call in calls),
        efficiency=efficiency(calls, concurrency=_CONCURRENCY),
        overhead_ms=cpu / items * 1000,
        recovery_s=recovery(calls, window=2 * options.scale) if run == "storm" else None,
    )


def _published(scene: Scene) -> Result:
    prior = prior_from_json(yaml.safe_load(_PRIOR.read_text()))
    prompts = [render(prior, example) for example in stg.generate(_PUBLISHED_ITEMS, seed=1)]
    label_in_waves(str(scene.teacher.base_url).rstrip("/"), "published", prompts)
    calls = scene.calls("published")
    seconds = max(call.answered for call in calls) - min(call.came for call in calls)
    return Result("published", len(prompts), seconds, efficiency(calls, concurrency=_CONCURRENCY))


@contextmanager
def _scene(options: argparse.Namespace) -> Iterator[Scene]:
    port = service.free_port()
    mean = options.scale
    manners = {
        "fixed": Manner(mean),
        "lognormal": Manner(mean, cv=0.5),
        "published": Manner(mean, cv=0.5),
        "storm": Manner(mean, storm_after=10 * mean, storm=10 * mean),
        "quick": Manner(0.02),
    }
    script = json.dumps({name: asdict(manner) for name, manner in manners.items()})
    teachers = {
        name: {"base_url": f"http://127.0.0.1:{port}/v1", "model": name, "concurrency": _CONCURRENCY}
        for name in manners
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(service.database(options.postgres))
        settings = service.environment(url, options.redis, folder) | {"CAUSEWAY_TEACHERS": json.dumps(teachers)}
        stack.enter_context(service.role(["-m", "benchmarks.throughput.teacher", str(port), script], settings))
        stack.enter_context(service.role(["-m", "worker", "relay"], settings))
        worker = stack.enter_context(service.role(["-m", "worker", "annotation"], settings))
        _, http = stack.enter_context(service.api(settings))
        teacher = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False))
        service.wait_for(teacher, "/calls/quick")
        yaml_type = {"Content-Type": "application/yaml"}
        prior = http.post("/v1/priors", content=_PRIOR.read_bytes(), headers=yaml_type).raise_for_status().json()
        yield Scene(http, teacher, worker.pid, prior["id"])


def _dataset(scene: Scene, items: int) -> str:
    dataset: str = _post(scene, "/v1/datasets", name="throughput")["id"]
    lines = "\n".join(map(_line, stg.generate(items, seed=1)))
    scene.http.post(f"/v1/datasets/{dataset}/examples", content=lines).raise_for_status()
    return dataset


def _line(example: Example) -> str:
    return json.dumps({"input": example.input, "target": example.target})


def _post(scene: Scene, path: str, **body: str) -> dict[str, Any]:
    answer: dict[str, Any] = scene.http.post(path, json=body).raise_for_status().json()
    return answer


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: fields 14 and 15 of /proc/PID/stat (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _table(results: list[Result]) -> Table:
    table = Table("run", "items", "seconds", "items/s", "efficiency", "CPU ms/item", "recovery s")
    for one in results:
        figures = (one.items, one.seconds, one.items / one.seconds, one.efficiency, one.overhead_ms, one.recovery_s)
        formats = ("{:,}", "{:.1f}", "{:.1f}", "{:.3f}", "{:.2f}", "{:.1f}")
        cells = ("" if value is None else form.format(value) for form, value in zip(formats, figures, strict=True))
        table.add_row(one.run, *cells)
    return table


def _summary(results: list[Result]) -> dict[str, float | None]:
    of = {one.run: one for one in results}
    used = [of[run].efficiency for run in ("fixed", "lognormal") if run in of]
    return {
        "efficiency": round(min(used), 4) if used else None,
        "overhead_ms": _rounded(of["quick"].overhead_ms) if "quick" in of else None,
        "recovery_s": _rounded(of["storm"].recovery_s) if "storm" in of else None,
        "published_efficiency": round(of["published"].efficiency, 4) if "published" in of else None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.annotation_throughput")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on every time but the 20 ms")
    parser.add_argument("--items", type=int, default=100 * _CONCURRENCY, help="of a job, but that of the storm")
    parser.add_argument("--only", nargs="+", choices=_RUNS, help="these runs alone")
    parser.add_argument("--postgres", default=service.POSTGRES, help="a server on which databases may be created")
    parser.add_argument("--redis", default=service.REDIS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
