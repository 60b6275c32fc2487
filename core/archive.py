"""A folder as one file whose bytes depend on names and contents alone."""

import gzip
import tarfile
from pathlib import Path


def write_archive(folder: Path, path: Path) -> None:
    """Pack the files of `folder` as tar.gz. No times, no owners, sorted: equal folders give equal bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size = file.stat().st_size
            entry.mode = 0o644
            with file.open("rb") as content:
                archive.addfile(entry, content)
