"""One server for the tests that need no special flags."""

import pytest
from helpers.sandbox_serving import serving


@pytest.fixture(scope="session")
def server():
    with serving("--concurrency", "2") as running:
        yield running
