"""`serve run service.ray.app:app`: the service on a Ray cluster, replicas added with the load.

A replica is what `sdpose serve` runs, without its sockets: the same runtime behind the same ASGI
app and the same gRPC methods, so requests, answers and errors are the same. Serve has the proxies
before it, chooses the replica for a request, and adds and removes replicas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.deployment import Application
from ray.serve.grpc_util import RayServegRPCContext

from sdpose_client.v1 import pose_pb2
from service.ray.calls import Rejected, several, single
from service.rest.app import create_app
from service.rpc.interceptor import PoseCallInterceptor
from service.rpc.servicer import PoseServicer
from service.runtime.models import Build, build_estimator
from service.runtime.runtime import Runtime
from service.settings import load_settings
from service.telemetry.logs import configure_logs
from service.telemetry.tracing import make_tracer

GRPC_SERVICER = "service.ray.calls.add_pose_service"
"""For Serve's `grpc_servicer_functions`."""


@serve.deployment(
    name="pose",
    # Per replica: its own bounds reject before this one is reached.
    max_ongoing_requests=320,
    autoscaling_config=AutoscalingConfig(
        min_replicas=1,
        max_replicas=4,
        # A running batch and one that waits; more only makes the queue longer.
        target_ongoing_requests=8,
        upscale_delay_s=10,
        downscale_delay_s=300,
    ),
    health_check_period_s=5,
    graceful_shutdown_timeout_s=25,
)
@serve.ingress()
class PoseReplica:
    """One runtime with its front ends. Its settings are the `SDPOSE_` variables of its process."""

    async def __init__(self, settings: dict[str, Any], build: Build) -> None:  # type: ignore[misc]
        chosen = load_settings(**settings)
        configure_logs(chosen.log_level, chosen.log_format)
        self._runtime = Runtime(chosen, build=build, tracer=make_tracer(enabled=chosen.tracing))
        await self._runtime.start()
        largest = int(chosen.max_image_mb * 2**20) + 2**20
        calls = PoseCallInterceptor(self._runtime, largest)
        self._handlers = calls.handlers(PoseServicer(self._runtime))

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(self._runtime)

    async def EstimatePose(
        self, request: pose_pb2.EstimatePoseRequest, grpc_context: RayServegRPCContext
    ) -> Any:
        """As `PoseServicer.EstimatePose`."""
        nothing = pose_pb2.EstimatePoseResponse()
        return await single(self._handlers["EstimatePose"], request, grpc_context, nothing)

    async def StreamPose(
        self,
        requests: AsyncIterator[Any],
        grpc_context: RayServegRPCContext,
    ) -> AsyncIterator[Any]:
        """As `PoseServicer.StreamPose`."""
        with suppress(Rejected):
            async for answer in several(self._handlers["StreamPose"], requests, grpc_context):
                yield answer

    async def WatchCamera(
        self, request: pose_pb2.WatchCameraRequest, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        """As `PoseServicer.WatchCamera`; a rejection comes with its status alone.

        Serve would take a stream that ends without an answer for a good one.
        """

        async def once() -> AsyncIterator[Any]:
            yield request

        async for event in several(self._handlers["WatchCamera"], once(), grpc_context):
            yield event

    def check_health(self) -> None:
        """Raises if Serve should replace this replica."""
        if (reason := self._runtime.not_live()) is not None:
            raise RuntimeError(reason)

    async def __del__(self) -> None:
        await self._runtime.drain()
        self._runtime.stop()


def build_app(settings: dict[str, Any]) -> Application:
    """An application with these settings, such as `{"student": "sdpose-lite"}`.

    Serve passes the arguments of its configuration file or command line here.
    """
    return serving_app(settings)


def serving_app(
    settings: dict[str, Any], build: Build = build_estimator, **deployment: Any
) -> Application:
    """As `build_app`; `build` gives the models, `deployment` other options of the deployment."""
    return PoseReplica.options(**deployment).bind(settings, build)  # type: ignore[attr-defined]


app = build_app({})
