import sys
from pathlib import Path

import pytest
from loopback_cluster import LoopbackCluster, write_kubeconfig

from cloud_server.kubernetes.kubeconfig import KubeConfig
from fleet_model.kubernetes.api import Cluster
from fleet_model.kubernetes.connection import Patience

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def new_cluster(tmp_path):
    """Return a function that starts a cluster; all end with the test."""
    running = []

    def start(**options):
        running.append(LoopbackCluster(tmp_path, **options).__enter__())
        return running[-1]

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture
def asked(new_cluster, tmp_path):
    """Return a cluster and what asks it."""
    cluster = new_cluster()
    file = write_kubeconfig(tmp_path / "kubeconfig", cluster.kubeconfig())
    with Cluster(KubeConfig([file]).connection("robot", Patience())) as api:
        yield cluster, api


@pytest.fixture
def files(tmp_path):
    """Return a function that writes texts as files."""

    def write(*texts):
        paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    return write
