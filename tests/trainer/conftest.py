"""What the trainer's tests share: `builtin:small`, loaded once from a cache of the test session's own."""

import signal

import pytest

from core.domain.run_folder import BaseModelSpec
from trainer.model import LoadedBase, load_base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSEWAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_signals():
    """A trainer that runs within the test keeps its handlers to its end; Ctrl-C is pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def small(_own_cache) -> LoadedBase:
    """The toy base. Shared: a test that changes the model loads its own."""
    return load_base(BaseModelSpec("builtin:small", "builtin:small"))
