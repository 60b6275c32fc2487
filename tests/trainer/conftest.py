"""What the trainer's tests share: `builtin:small`, loaded once from a cache of the test session's own."""

import pytest

from core.domain.run_folder import BaseModelSpec
from trainer.model import LoadedBase, load_base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSEWAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small(_own_cache) -> LoadedBase:
    """The toy base. Shared: a test that changes the model loads its own."""
    return load_base(BaseModelSpec("builtin:small", "builtin:small"))
