"""The REST front end as an ASGI app."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ServiceError
from service.rest.connection import ClientGoneError
from service.rest.context import context_of
from service.rest.errors import CLIENT_GONE, on_http_error, on_service_error
from service.rest.middleware import RequestContextMiddleware
from service.rest.routes import operator_routes, pose_routes
from service.rest.stream import stream_routes
from service.runtime.runtime import Runtime


def create_app(runtime: Runtime) -> FastAPI:
    """The app over one runtime, which the caller starts and stops."""
    app = FastAPI(
        title="SDPose service",
        version=version("sdpose-service"),
        description="Real-time human pose: 17 named keypoints in pixels for everyone in a picture.",
    )
    app.include_router(pose_routes(runtime))
    app.include_router(stream_routes(runtime))
    app.include_router(operator_routes(runtime))
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    app.add_middleware(RequestContextMiddleware, runtime=runtime)
    return app


async def _on_client_gone(request: Request, error: Exception) -> Response:
    context_of(request.scope).outcome = "client_gone"
    return Response(status_code=CLIENT_GONE)
