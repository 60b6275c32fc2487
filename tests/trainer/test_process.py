"""What a trainer is told by signals."""

import signal
import subprocess
import sys

import pytest

from trainer.process import stop_request, stops_withheld

SECOND = """
import signal
from trainer.process import stop_request
has_come = stop_request()
signal.raise_signal(signal.{first})
assert has_come()
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_only_asks(number, capfd):
    has_come = stop_request()
    assert not has_come()
    signal.raise_signal(number)
    assert has_come()
    assert ("Ctrl-C again" in capfd.readouterr().err) == (number is signal.SIGINT)


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
def test_ctrl_c_ends_what_was_asked_before(first):
    ran = subprocess.run([sys.executable, "-c", SECOND.format(first=first)], stderr=subprocess.PIPE, check=False)
    assert ran.returncode == -signal.SIGINT, ran.stderr


def test_what_was_withheld_comes_afterwards():
    has_come = stop_request()
    with stops_withheld():
        signal.raise_signal(signal.SIGTERM)  # to this thread: what is sent to the process, another one may take
        assert not has_come()
    assert has_come()
