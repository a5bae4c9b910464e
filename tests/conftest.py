"""Settings of all tests."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio: the service uses no other event loop."""
    return "asyncio"
