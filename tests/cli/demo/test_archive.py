"""A downloaded archive is not trusted: sums must match, members must be plain files of their own folder."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from cli.demo.archive import check_sum, unpack
from cli.demo.client import DemoFailed

WEIGHTS = b"weights"


def _manifest(content: bytes = WEIGHTS) -> bytes:
    return json.dumps({"files": {"a.safetensors": {"sha256": hashlib.sha256(content).hexdigest()}}}).encode()


def _archive(path: Path, files: dict[str, bytes], *odd: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in odd:
            tar.addfile(member)
    return path


def _link(kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


def test_a_good_archive_is_unpacked(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "x.tar.gz", {"a.safetensors": WEIGHTS, "manifest.json": _manifest()})
    unpack(archive, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "a.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["../evil", "/evil", "sub/../../evil"])
def test_a_member_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = _archive(tmp_path / "x.tar.gz", {name: b"x", "manifest.json": _manifest()})
    with pytest.raises(DemoFailed, match="not a plain file"):
        unpack(archive, tmp_path / "deep" / "adapter")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    archive = _archive(tmp_path / "x.tar.gz", {"manifest.json": _manifest()}, _link(kind))
    with pytest.raises(DemoFailed, match="not a plain file"):
        unpack(archive, tmp_path / "adapter")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "x.tar.gz", {"a.safetensors": b"weighty", "manifest.json": _manifest()})
    with pytest.raises(DemoFailed, match=r"a\.safetensors: sha256"):
        unpack(archive, tmp_path / "adapter")


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"files": {"a": 1}}'])
def test_an_archive_without_a_manifest_is_refused(tmp_path: Path, manifest: bytes) -> None:
    archive = _archive(tmp_path / "x.tar.gz", {"manifest.json": manifest} if manifest else {"a": b""})
    with pytest.raises(DemoFailed, match="manifest"):
        unpack(archive, tmp_path / "adapter")


def test_the_sum_of_the_archive_itself_is_checked(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(WEIGHTS)
    check_sum(tmp_path / "x", hashlib.sha256(WEIGHTS).hexdigest())
    with pytest.raises(DemoFailed, match="promised"):
        check_sum(tmp_path / "x", hashlib.sha256(b"others").hexdigest())
