"""A stand-in server for each test, and a client of the unmodified cvat-sdk that is logged in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.cvat.stand_in import StandIn

if TYPE_CHECKING:
    from cvat_sdk import Client

    from tests.cvat.sync import Bench


@pytest.fixture
def cvat() -> Iterator[StandIn]:
    """A started stand-in; at the end no request may have broken it."""
    with StandIn() as server:
        yield server
    assert server.errors == []


@pytest.fixture
def cvat_client(cvat: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client with the password of the stand-in's admin, polling and repeating without a wait."""
    cvat_sdk = pytest.importorskip("cvat_sdk")
    with cvat_sdk.make_client(cvat.url, credentials=cvat.credentials) as client:
        client.config.status_check_period = 0.01
        client.api_client.rest_client.pool_manager.connection_pool_kw["retries"].backoff_factor = 0
        client.config.cache_dir = tmp_path_factory.mktemp("cvat-cache")
        yield client


@pytest.fixture
def bench(cvat: StandIn) -> Bench:
    """Pushes and pulls of a run, and what the stand-in holds afterwards."""
    pytest.importorskip("cvat_sdk")
    from tests.cvat.sync import Bench

    return Bench(cvat)
