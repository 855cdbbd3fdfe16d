from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a test: no property is about time.
settings.register_profile("edgekit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgekit")

# A shell that starts a job in the background makes it ignore SIGINT, and what it starts inherits that: the tests of
# Ctrl-C would wait forever. A handler, unlike "ignore", goes back to the default in every process started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests keep of engines and kernels is theirs: the user's cache must neither help them nor fill up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
