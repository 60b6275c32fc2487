from pathlib import Path

import pytest

from api.example_lines import LineReader
from api.lines import Lines
from api.uploads import Upload
from core.errors import Unavailable
from core.settings import LimitSettings

LINE = b'{"input": "1 + 1 = ", "target": "2", "important": [{"2": ["1", "x"]}]}\n'


def upload(folder: Path) -> Upload:
    return Upload(Lines(LimitSettings()), LineReader("train", most_relations=9, loose=False), folder / "spool")


def test_what_was_fed_is_read_back_in_order(tmp_path: Path) -> None:
    with upload(tmp_path) as one:
        one.feed(LINE * 2 + LINE[:20])
        one.feed(LINE[20:-1])
        one.finish()
        assert [example.line for example in one.examples()] == [1, 2, 3]
        assert [example.line for example in one.examples()] == [1, 2, 3]  # as often as one likes
        assert (one.rows, one.relations, dict(one.unresolved)) == (3, 3, {"not_found": 3})
        assert list((tmp_path / "spool").iterdir()) == []  # a crash leaves no file either


@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_full_disk_is_said_to_be_one(tmp_path: Path, lines: int) -> None:
    def send(one: Upload) -> None:
        one.feed(LINE * lines)
        one.finish()

    if not Path("/dev/full").is_char_device():
        pytest.skip("this machine has no /dev/full")
    with upload(tmp_path) as one:
        one._spool.close()
        one._spool = Path("/dev/full").open("w")  # noqa: SIM115 (closed by the upload)
        with pytest.raises(Unavailable, match="disk is full"):
            send(one)
