"""A downloaded adapter: checked against its published sum, unpacked without trust, each file checked again."""

import hashlib
import json
import tarfile
from pathlib import Path, PurePosixPath

from cli.demo.client import DemoFailed

_LARGEST = 10 * 2**30  # bytes of one file


def check_sum(path: Path, expected: str) -> None:
    """Raise DemoFailed unless the SHA-256 of the file at `path` is `expected`."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise DemoFailed(f"{path.name}: sha256 is {found}, the service promised {expected}")


def unpack(archive: Path, folder: Path) -> None:
    """Write the plain files of a tar.gz into `folder`, and hold them against the manifest.json among them.

    Raises
    ------
    DemoFailed
        When a member is not a plain file, would lie outside of `folder` or is too large, or when a file is not what
        the manifest says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isdir() and not path.is_absolute() and ".." not in path.parts:
                continue
            content = tar.extractfile(member) if member.isreg() and member.size <= _LARGEST else None
            if content is None or path.is_absolute() or ".." in path.parts:
                raise DemoFailed(f"{archive.name} holds {member.name!r}, which is not a plain file of its own folder")
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
    for name, sha256 in _promised(folder).items():
        check_sum(folder / name, sha256)


def _promised(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DemoFailed("the adapter has no readable manifest.json") from exc
