"""Stands in for `python -m trainer`: fake_trainer.py BEHAVIOUR [--plan] RUN_DIR. Standard library only."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FINISHED, FAILED, DISK_FULL, INTERRUPTED = 0, 1, 74, 75


def main(behaviour: str, *arguments: str) -> int:
    """Do as `behaviour` says; returns the exit status."""
    run = Path(arguments[-1])
    json.loads((run / "config.json").read_text())
    if "--plan" in arguments:
        say(run, "plan", steps=20, tokens=99, examples=3, supervised_rows=0, longest=9)
        return FINISHED
    say(run, "plan", steps=20)
    say(run, "step", step=10, steps=20, loss=0.5, eta_seconds=1.0)
    return BEHAVIOURS[behaviour](run)


def succeed(run: Path) -> int:
    adapter = run / "adapter"
    adapter.mkdir(exist_ok=True)
    files = {"adapter_model.safetensors": b"weights", "adapter_config.json": b"{}"}
    entries = {}
    for name, content in files.items():
        (adapter / name).write_bytes(content)
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (adapter / "manifest.json").write_text(json.dumps({"files": entries}))
    say(run, "step", step=20, steps=20, loss=0.25, eta_seconds=0.0)
    say(run, "evaluation", split="iid", step=20, metrics={"accuracy": 1.0})
    say(run, "finished", steps=20, seconds=1.0, adapter_sha256="0", metrics={"iid": {"accuracy": 1.0}})
    return FINISHED


def fail(run: Path) -> int:
    say(run, "failed", code="not_finite", message="the loss is not finite at step 11", facts={"step": 11})
    return FAILED


def fail_together(run: Path) -> int:
    say(run, "failed", code="not_finite", message="the loss is not finite at step 11", facts={"step": 11})
    say(run, "failed", code="process_lost", message="another process ended", facts={})
    return FAILED


def find_the_disk_full(_: Path) -> int:
    return DISK_FULL


def fail_without_a_word(_: Path) -> int:
    sys.stderr.write("Traceback: something about user text")
    return 3


def end_without_a_word(_: Path) -> int:
    return FINISHED


def die(_: Path) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return FAILED


def tear(run: Path) -> int:
    """Die in the middle of a line the first time; go on from there the second time."""
    torn = run / "torn"
    if torn.exists():
        return succeed(run)
    torn.touch()
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"type": "step", "step": 11, "st')
    return INTERRUPTED


def babble(run: Path) -> int:
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'not json\n[1, 2]\n{"no": "type"}\n\xff\n')
    return succeed(run)


def wait_for_stop(run: Path) -> int:
    """Train until SIGTERM, then save and go."""
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    say(run, "checkpoint", step=10)
    while not stop:
        time.sleep(0.02)
    return INTERRUPTED


def ignore_stop(run: Path) -> int:
    """Never end, and leave a process behind that would not either."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (run / "grandchild").write_text(str(left.pid))
    say(run, "checkpoint", step=10)
    while True:
        time.sleep(0.02)


def show_environment(run: Path) -> int:
    say(run, "failed", code="environment", message="", facts={"environment": dict(os.environ)})
    return FAILED


def say(run: Path, kind: str, **fields: object) -> None:
    """Append an event, after cutting off what a killed process left half-written, as the real one does."""
    path = run / "events.jsonl"
    path.touch()
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(content.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write((json.dumps({"type": kind, "at": time.time(), **fields}) + "\n").encode())


BEHAVIOURS = {
    made.__name__: made
    for made in (
        succeed, fail, fail_together, find_the_disk_full, fail_without_a_word, end_without_a_word, die, tear, babble,
        wait_for_stop, ignore_stop,
        show_environment,
    )
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
