from __future__ import annotations

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives each conformance class the schemes that it names."""
    if "scheme" in metafunc.fixturenames and metafunc.cls is not None:
        metafunc.parametrize("scheme", metafunc.cls.schemes, ids=lambda scheme: scheme.label)
