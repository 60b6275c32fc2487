"""`causeway demo`: the steps in order, told as they go."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import out as console
from cli.demo import children, steps
from cli.demo.client import Client, DemoFailed
from cli.demo.progress import board
from cli.demo.report import gain, report_of, table_of, write_report
from cli.demo.service import service
from core.errors import CausewayError
from core.settings import BUILTIN_SMALL

_PRIOR = Path(__file__).parents[2] / "examples" / "priors" / "stg.yaml"
_BATCH = 64
_STEPS = 400  # optimiser steps that cat needs at least to learn the rule at these settings, see EXPERIMENTS.md
_MADE = ("data", "service", "adapters", "measured")  # folders of an earlier run, removed before the next


def demo(
    examples: Annotated[int, typer.Option(min=100, help="Training examples.")] = 6400,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over them. Default: 6, more when there are few examples.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data and of both trainings.")] = 0,
    teacher: Annotated[str, typer.Option(help="Who labels: rule, or one of your CAUSEWAY_TEACHERS.")] = "rule",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is written.")] = Path("var/demo"),
    assert_gain: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Fail unless cat is more than this above sft out of distribution."),
    ] = None,
) -> None:
    """See the whole product work on this machine: data, prior, labels, two trainings, the proof.

    Starts the service on a free port with everything in DIR, then is a client of its REST API. The same small model is
    trained twice on the same labelled examples, as sft (next token only) and as cat, and judged where the shortcuts of
    the training data still hold (iid) and where they are broken (ood).
    """
    if not _PRIOR.is_file():
        raise DemoFailed(f"there is no {_PRIOR}: run the demo from a clone of the repository")
    config = _training_config(epochs=epochs or _enough_epochs(examples), seed=seed)
    for name in _MADE:
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "service.log"
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    try:
        report = _run(out.resolve(), log.resolve(), examples, seed, teacher, config, begun)
    except CausewayError as exc:
        raise DemoFailed(f"{exc.message} (logs: {log})") from exc
    console.print(table_of(report))
    console.print(f"{out / 'report.json'}, {out / 'attention.png'}; {report['seconds']:.0f} s", markup=False)
    if assert_gain is not None and gain(report) <= assert_gain:
        raise DemoFailed(f"cat is {gain(report):+.1f} points against sft on ood; wanted more than {assert_gain:+.1f}")


def _enough_epochs(examples: int) -> int:
    return max(6, math.ceil(_STEPS * _BATCH / examples))


def _training_config(*, epochs: int, seed: int) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "seed": seed,
        "batch_size": _BATCH,
        "learning_rate": 2e-3,
        "lora_rank": 16,
        "lora_alpha": 32,
        "log_every": 10,
    }


def _run(
    out: Path, log: Path, examples: int, seed: int, teacher: str, config: dict[str, Any], begun: float
) -> dict[str, Any]:
    at_once = min(2, os.cpu_count() or 1)
    with service(out / "service", log=log, trainings=at_once) as running:
        _say(begun, f"the service answers at {running.url}")
        data, adapters = _from_data_to_adapters(running.client, out, examples, seed, teacher, config, begun)
    _say(begun, "5  evaluate base, sft and cat in fresh processes, with stock attention")
    measured = children.evaluate_all(
        {"base": None} | adapters,
        base=BUILTIN_SMALL,
        splits=[getattr(data, split) for split in steps.HELD_OUT],
        mass_on=data.ood,
        out=out / "measured",
        at_once=at_once,
    )
    example = steps.first_example(data.ood)
    children.draw_attention(list(adapters.values()), base=BUILTIN_SMALL, example=example, png=out / "attention.png")
    report = report_of(measured, seconds=time.monotonic() - begun)
    write_report(report, out / "report.json")
    _say(begun, "6  done")
    return report


def _from_data_to_adapters(
    client: Client, out: Path, examples: int, seed: int, teacher: str, config: dict[str, Any], begun: float
) -> tuple[steps.Data, dict[str, Path]]:
    _say(begun, f"1  post {examples:,} training examples, and 400 + 400 to judge by")
    data = steps.generate_data(out / "data", examples=examples, seed=seed)
    dataset_id = steps.create_dataset(client, data)
    _say(begun, f"2  post the prior {_PRIOR.name}")
    prior_id = str(client.post_prior(_PRIOR.read_text(encoding="utf-8"))["id"])
    _say(begun, f"3  label with the teacher {teacher!r}")
    with board(console) as shown:
        labels = steps.label(client, shown, dataset_id=dataset_id, prior_id=prior_id, teacher=teacher)
    _say(begun, "4  train sft and cat: same base, examples, order, steps and seed")
    with board(console) as shown:
        trained = steps.train(client, shown, dataset_id=dataset_id, labels=labels, config=config)
    _say(begun, "5  download both adapters and check their sha256")
    adapters = {
        method: steps.fetch_adapter(client, adapter_id, out / "adapters" / method)
        for method, adapter_id in trained.items()
    }
    return data, adapters


def _say(begun: float, what: str) -> None:
    console.print(f"[dim]{time.monotonic() - begun:5.0f} s[/dim]  [bold]{what}[/bold]")
