"""The REST front end as an ASGI app."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from service.rest.admin import admin_routes
from service.rest.cameras import camera_routes
from service.rest.connection import ClientGoneError
from service.rest.errors import CLIENT_CLOSED_REQUEST, on_http_error
from service.rest.middleware import CallMiddleware
from service.rest.page import mount_page
from service.rest.routes import operator_routes, pose_routes
from service.rest.stream import stream_routes
from service.runtime.runtime import Runtime
from service.telemetry.calls import CLIENT_GONE, current_call


def create_app(runtime: Runtime) -> FastAPI:
    """The app over one runtime, which the caller starts and stops."""
    app = FastAPIOffline(  # /docs with the files of this package in place of a CDN's
        title="SDPose service",
        version=version("sdpose-service"),
        description="Real-time human pose: named keypoints in pixels for everyone in an image.",
        favicon_url="data:,",
        redoc_url=None,
        redirect_slashes=False,  # `CallMiddleware` takes a path with and without one
    )
    app.include_router(pose_routes(runtime))
    app.include_router(stream_routes(runtime))
    app.include_router(camera_routes(runtime))
    app.include_router(admin_routes(runtime))
    app.include_router(operator_routes(runtime, metrics=runtime.settings.metrics_port is None))
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    mount_page(app)
    app.add_middleware(CallMiddleware, runtime=runtime)
    origins = runtime.settings.cors_origins
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    return app


def create_operator_app(runtime: Runtime) -> FastAPI:
    """Health and metrics alone, for a separate port: without keys and in plain HTTP."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(operator_routes(runtime, metrics=True))
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_middleware(CallMiddleware, runtime=runtime, callers=False)
    return app


async def _on_client_gone(request: Request, error: Exception) -> Response:
    current_call().outcome = CLIENT_GONE
    return Response(status_code=CLIENT_CLOSED_REQUEST)
