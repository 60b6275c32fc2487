"""`python -m trainer RUN_DIR`: run, or go on with, one training run. See core.domain.run_folder for the folder.

On several GPUs: `torchrun --nproc-per-node N -m trainer RUN_DIR`.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from core.domain.run_folder import EXIT_DISK_FULL, EXIT_FAILED, EXIT_FINISHED, EXIT_INTERRUPTED, run_from_json
from core.errors import CausewayError, DiskFull, InvalidInput, OutOfMemory, ProcessLost
from trainer.answers import never
from trainer.events import EventLog
from trainer.memory import is_out_of_memory
from trainer.process import end_with_torchrun, is_lost_peer, keep_freed_memory, sole_trainer, stop_request
from trainer.train import plan, train


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    if not options.run_dir.is_dir():
        print(f"there is no folder {options.run_dir}", file=sys.stderr)
        return EXIT_FAILED
    # A plan keeps nothing, so whoever stops it need not wait.
    should_stop = never if options.plan else stop_request()
    keep_freed_memory()
    end_with_torchrun()
    leads = os.environ.get("RANK", "0") == "0"  # as torchrun says
    try:
        with sole_trainer(options.run_dir) if leads else nullcontext():
            return _run(options.run_dir, should_stop, leads=leads, only_plan=options.plan)
    except CausewayError as error:  # busy, or not to be written to: no event can tell
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return EXIT_FAILED


def _run(folder: Path, should_stop: Callable[[], bool], *, leads: bool, only_plan: bool) -> int:
    events = EventLog(folder / "events.jsonl", leads=leads)
    try:
        run = run_from_json(_config_of(folder))
        if only_plan:
            planned = plan(run, folder, events)
            if leads:
                print(json.dumps(asdict(planned), indent=2))
            return EXIT_FINISHED
        result = train(run, folder, events, should_stop=should_stop)
        if result is None:
            events.stopped()  # torchrun swallows the exit status
    except CausewayError as error:
        return _tell(events, error)
    except Exception as error:  # noqa: BLE001 (the last place where it can still be told)
        traceback.print_exc()
        return _tell(events, _what_it_means(error))
    return EXIT_INTERRUPTED if result is None else EXIT_FINISHED


def _tell(events: EventLog, error: CausewayError) -> int:
    """Say why the run cannot go on, in its events and on stderr. Returns the exit status."""
    print(f"{error.code}: {error.message}", file=sys.stderr)
    try:
        events.failed(error)
    except DiskFull as exc:  # most likely what failed the run in the first place
        print(f"events.jsonl could not take this: {exc.message}", file=sys.stderr)
        return EXIT_DISK_FULL
    except CausewayError as exc:
        print(f"events.jsonl could not take this: {exc.message}", file=sys.stderr)
    return EXIT_FAILED


def _what_it_means(error: Exception) -> CausewayError:
    """An error that nobody expected, in words of ours."""
    if is_out_of_memory(error):
        return OutOfMemory("memory ran out; the traceback in the log says where")
    if is_lost_peer(error):
        return ProcessLost(
            "another process of this training ended without saying why; SIGKILL often means that memory ran out"
        )
    return CausewayError("the trainer hit a bug; its traceback is in the log", error=type(error).__name__)


def _config_of(folder: Path) -> dict[str, object]:
    try:
        value = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as exc:
        raise InvalidInput("the run folder has no readable config.json", file="config.json") from exc
    if not isinstance(value, dict):
        raise InvalidInput("config.json must hold an object", file="config.json")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Fine-tune a LoRA adapter from a run folder, or go on from its newest checkpoint.",
        epilog=f"Exit status: {EXIT_FINISHED} finished, {EXIT_FAILED} failed (events.jsonl says why), {EXIT_DISK_FULL} "
        f"failed on a disk too full to say why, {EXIT_INTERRUPTED} stopped by SIGTERM or Ctrl-C after a checkpoint; "
        "run it again to go on.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="holds config.json, train.jsonl and eval/")
    parser.add_argument("--plan", action="store_true", help="count tokens, rows and steps, measure a step, then stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
