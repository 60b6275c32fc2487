"""Equal folders give equal archives, whatever their history."""

import os
import tarfile
from pathlib import Path

from core.archive import write_archive


def _folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_times_owners_and_order_leave_no_trace(tmp_path: Path) -> None:
    files = {"b.json": b"{}", "a.safetensors": os.urandom(10_000), "deep/c.txt": b"c"}
    one = _folder(tmp_path / "one", files)
    two = _folder(tmp_path / "two", dict(reversed(files.items())))
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    write_archive(one, tmp_path / "one.tar.gz")
    write_archive(two, tmp_path / "differently named.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "differently named.tar.gz").read_bytes()
    (two / "b.json").write_bytes(b"[]")
    write_archive(two, tmp_path / "other.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() != (tmp_path / "other.tar.gz").read_bytes()


def test_the_archive_holds_the_files_sorted(tmp_path: Path) -> None:
    files = {"b.json": b"{}", "a.txt": b"a", "deep/c.txt": b"c"}
    write_archive(_folder(tmp_path / "one", files), tmp_path / "one.tar.gz")
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        assert archive.getnames() == ["a.txt", "b.json", "deep/c.txt"]
        read = {name: archive.extractfile(name).read() for name in archive.getnames()}
    assert read == files
