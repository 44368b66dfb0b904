import uuid

import pytest
import pytest_asyncio

from support.k8s.cluster import a_cluster, an_operator
from support.k8s.samples import chat_class
from tempo_operator.kinds import SLO_CLASS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory):
    async with a_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def namespace(cluster):
    return await cluster.namespace()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat(cluster):
    """A class of its own for each file, since classes are the whole cluster's."""
    name = f"chat-{uuid.uuid4().hex[:6]}"
    await cluster.client.create(SLO_CLASS, chat_class(name))
    yield name
    await cluster.client.delete(SLO_CLASS, None, name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(cluster, namespace, tmp_path_factory):
    """One operator for all tests of a file: it takes a second to start, and holds no state."""
    folder = tmp_path_factory.mktemp("operator")
    async with an_operator(cluster, namespace, folder, "--look-seconds", "0.5", "--resync-seconds", "5") as found:
        yield found


@pytest.fixture
def name():
    """For a pool of one test."""
    return f"p{uuid.uuid4().hex[:6]}"
