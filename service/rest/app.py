"""The REST front end as an ASGI app."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.rest.cameras import camera_routes
from service.rest.connection import ClientGoneError
from service.rest.errors import CLIENT_CLOSED_REQUEST, on_http_error
from service.rest.middleware import CallMiddleware
from service.rest.routes import key_check, operator_routes, pose_routes
from service.rest.stream import stream_routes
from service.runtime.runtime import Runtime
from service.telemetry.calls import CLIENT_GONE, current_call


def create_app(runtime: Runtime) -> FastAPI:
    """The app over one runtime, which the caller starts and stops."""
    app = FastAPI(
        title="SDPose service",
        version=version("sdpose-service"),
        description="Real-time human pose: 17 named keypoints in pixels for everyone in an image.",
    )
    app.include_router(pose_routes(runtime))
    app.include_router(stream_routes(runtime))
    app.include_router(camera_routes(runtime, key_check(runtime.settings.api_keys)))
    app.include_router(operator_routes(runtime))
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    app.add_middleware(CallMiddleware, runtime=runtime)
    return app


async def _on_client_gone(request: Request, error: Exception) -> Response:
    current_call().outcome = CLIENT_GONE
    return Response(status_code=CLIENT_CLOSED_REQUEST)
