"""One replica of the service on a Ray of this machine, started for a measurement."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray import serve

from sdpose_core.hardware.ray_cluster import cluster
from service.bench.server import Server, free_port, wait_until_ready
from service.ray.app import GRPC_SERVICER, serving_app


@contextmanager
def started_on_ray() -> Iterator[Server]:
    """Serve's HTTP and gRPC proxies on free ports before one replica, which has all cores."""
    http_port, grpc_port = free_port(), free_port()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with cluster(None):
        serve.start(
            http_options={"host": "127.0.0.1", "port": http_port},
            grpc_options={"port": grpc_port, "grpc_servicer_functions": [GRPC_SERVICER]},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        try:
            serve.run(
                serving_app(
                    {"log_level": "warning"},
                    num_replicas=1,
                    autoscaling_config=None,
                    ray_actor_options={"num_cpus": 0},
                ),
                name="pose",
            )
            wait_until_ready(f"http://127.0.0.1:{http_port}/readyz")
            yield Server("127.0.0.1", http_port, grpc_port, None)
        finally:
            serve.shutdown()
