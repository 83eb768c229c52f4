"""The gRPC server: service, health, reflection, limits and keepalive."""

from __future__ import annotations

import resource
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sdpose_client.v1 import pose_pb2, pose_pb2_grpc
from service.rpc.interceptor import PoseCallInterceptor
from service.rpc.servicer import PoseServicer
from service.runtime.runtime import Runtime
from service.tls import TlsError, TlsFiles, WatchedFiles

_log = structlog.get_logger(__name__)

SERVICE_NAME = pose_pb2.DESCRIPTOR.services_by_name["PoseService"].full_name


class RpcServer:
    """One gRPC server on the running event loop; `tls` encrypts it."""

    def __init__(self, runtime: Runtime, tls: TlsFiles | None = None) -> None:
        self._tls = tls
        settings = runtime.settings
        # A margin over the image bound, so that an image just over it gets our own error.
        largest = int(settings.max_image_mb * 2**20) + 2**20
        # What comes above the service's own bounds, which answer better: a flood. The margin is
        # for health checks and reflection.
        most_calls = settings.max_requests + settings.max_streams + 64
        self._server = grpc.aio.server(
            interceptors=[PoseCallInterceptor(runtime, largest)],
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", 64 * 2**20),
                ("grpc.so_reuseport", 0),  # a taken port must be an error, not a shared port
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 65535),
                ("grpc.max_allowed_incoming_connections", _most_connections()),
                ("grpc.server_handshake_timeout_ms", 10_000),
                ("grpc.max_connection_idle_ms", 300_000),
                ("grpc.max_concurrent_streams", most_calls),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 0),
            ],
            maximum_concurrent_rpcs=most_calls,
            compression=grpc.Compression.NoCompression,
        )
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        pose_pb2_grpc.add_PoseServiceServicer_to_server(PoseServicer(runtime), self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (
                SERVICE_NAME,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ),
            self._server,
        )

    async def start(self, address: str) -> int:
        """Listens on `host:port` and gives the port; raises OSError when that is taken."""
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        await self.tell_ready(False)
        await self._server.start()
        return int(port)

    async def tell_ready(self, ready: bool) -> None:
        """Sets what the health service answers, for the server and for the pose service."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        now = status.SERVING if ready else status.NOT_SERVING
        for name in ("", SERVICE_NAME):
            await self._health.set(name, now)

    async def stop(self, grace_s: float) -> None:
        """Rejects new calls and ends those in flight after the grace time."""
        await self._server.stop(grace_s)


def _most_connections() -> int:
    """A quarter of the files that the process may open: gRPC does not say whose they are."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(files // 4, 4096))


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Those of the files, read again when they have changed."""
    files = WatchedFiles(*tls.paths)

    def read() -> grpc.ServerCertificateConfiguration:
        key, certificate, ca = tls.read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca)

    def renewed() -> Any:
        """Called by gRPC at each handshake, in another thread; None keeps the certificates."""
        try:
            return read() if files.changed() else None
        except TlsError as error:
            _log.error("certificate not renewed", reason=str(error))
            return None

    return grpc.dynamic_ssl_server_credentials(read(), renewed, tls.client_ca is not None)
