"""A cluster for the whole session, and for each test a namespace of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import kr8s.asyncio
import pytest
from clusters import NoClusterError, running_cluster
from namespaces import Namespace, new_namespace


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of the cluster."""
    try:
        with running_cluster(tmp_path_factory.mktemp("cluster")) as kubeconfig:
            yield kubeconfig
    except NoClusterError as error:
        pytest.skip(str(error))


@pytest.fixture
async def api(cluster: Path) -> kr8s.asyncio.Api:
    """A client of the cluster. It belongs to the test's event loop."""
    return await kr8s.asyncio.api(kubeconfig=str(cluster))


@pytest.fixture
async def namespace(api: kr8s.asyncio.Api) -> AsyncIterator[Namespace]:
    """A namespace that takes no pod but those that meet the Pod Security Standard `restricted`."""
    async with new_namespace(api) as made:
        yield made
