"""The table of benchmarks.packing, on a toy."""

import json

from benchmarks.packing import main


def test_packing_takes_the_padding_out_of_what_cannot_be_grouped(capsys):
    main(["--quick"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    padded, packed = found["one batch"]["padding"]
    assert packed < 0.1 < padded
    padded, packed = found["large"]["padding"]
    assert packed <= padded < 0.1
    assert all(figures["time_ratio"] > 0 for figures in found.values())
