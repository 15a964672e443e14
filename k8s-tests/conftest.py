"""A cluster for the whole session, and for each test a namespace of its own."""

from collections.abc import Iterator

import pytest
from clusters import NoClusterError, running_cluster
from kubernetes.client import ApiClient
from namespaces import Namespace, new_namespace


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    """A client of the cluster."""
    try:
        with running_cluster(tmp_path_factory.mktemp("cluster")) as api:
            yield api
    except NoClusterError as error:
        pytest.skip(str(error))


@pytest.fixture
def namespace(cluster: ApiClient) -> Iterator[Namespace]:
    """A namespace that takes no pod but those that meet the Pod Security Standard `restricted`."""
    with new_namespace(cluster) as made:
        yield made
