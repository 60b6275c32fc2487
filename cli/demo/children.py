"""Work that is done in fresh processes: generating data, and judging adapters without the service or our trainer."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cli.demo.client import DemoFailed

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def generate(path: Path, *, n: int, seed: int, ood: bool) -> None:
    """Write `n` examples of the Spurious Token Game, with the generator's relations, as JSON lines."""
    arguments = ["--n", str(n), "--seed", str(seed), *(["--ood"] if ood else [])]
    with path.open("wb") as file:
        _run("benchmarks.stg", arguments, log=path.with_suffix(".log"), stdout=file)


def evaluate_all(
    adapters: dict[str, Path | None], *, base: str, splits: Sequence[Path], mass_on: Path, out: Path, at_once: int
) -> dict[str, dict[str, Any]]:
    """`python -m trainer.evaluate` for each adapter (None: the base alone), `at_once` at a time.

    Returns
    -------
    dict
        By name: {"splits": {split: {"accuracy", "balanced_accuracy", "majority", "n"}}, "mass"}; shares in [0, 1].
    """

    def evaluate(name: str, adapter: Path | None) -> dict[str, Any]:
        path = out / f"{name}.json"
        arguments = ["--base", base, "--mass-on", str(mass_on), "--out", str(path)]
        arguments += [part for split in splits for part in ("--data", str(split))]
        arguments += [] if adapter is None else ["--adapter", str(adapter)]
        _run("trainer.evaluate", arguments, log=out / f"{name}.log")
        measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return measured

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(adapters, pool.map(evaluate, adapters.keys(), adapters.values()), strict=True))


def draw_attention(adapters: Sequence[Path], *, base: str, example: dict[str, Any], png: Path) -> None:
    """`python -m trainer.look`: the attention of the answer row over the words of one example, one map an adapter."""
    data = png.with_suffix(".jsonl")
    data.write_text(json.dumps(example, ensure_ascii=False) + "\n", encoding="utf-8")
    paths = [part for adapter in adapters for part in ("--adapter", str(adapter))]
    arguments = ["--base", base, *paths, "--data", str(data), "--out", str(png)]
    _run("trainer.look", arguments, log=png.with_suffix(".log"))
    if not png.is_file():
        raise DemoFailed(f"python -m trainer.look drew nothing at {png}")


def _run(module: str, arguments: Sequence[str], *, log: Path, stdout: Any = None) -> None:
    with log.open("wb") as errors:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=errors if stdout is None else stdout,
            stderr=errors,
            check=False,
        )
    if done.returncode != 0:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise DemoFailed(f"python -m {module} failed (exit {done.returncode}): {' '.join(last)}; see {log}")
    if log.stat().st_size == 0:
        log.unlink()
