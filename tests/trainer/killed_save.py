"""A checkpoint whose process is killed at the n-th thing it asks of the disk.

`python -m tests.trainer.killed_save FOLDER STEP N`. Ends by SIGKILL, or with 0 when the save asks for less than N.
"""

import os
import signal
import sys
from itertools import count
from pathlib import Path

from trainer.checkpoints import save_checkpoint

_HALF = "killed_save.half"
# Opening to read counts too: that is how a file is brought to disk, which has no audit event of its own.
_ASKED = {_HALF, "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def fill(folder: Path) -> None:
    """Two files, each written in halves."""
    for name in ("a.bin", "b.json"):
        with (folder / name).open("wb", buffering=0) as file:
            file.write(b"half")
            sys.audit(_HALF)
            file.write(b" and half")


def main(folder: Path, step: int, at: int) -> None:
    """Save, and be killed before the `at`-th event."""
    seen = count(1)

    def kill(event: str, _args: tuple[object, ...]) -> None:
        if event in _ASKED and next(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    save_checkpoint(folder, step, fill, {"config": "c0ffee"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
