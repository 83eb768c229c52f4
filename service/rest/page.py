"""The page that people open in a browser, its files, and the source that it links to."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import zipfile
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import sdpose_client
import sdpose_core
import service

_OURS: Final = tuple(Path(package.__path__[0]) for package in (service, sdpose_core, sdpose_client))
_WEB: Final = _OURS[0] / "web"
_SKIPPED: Final = {"__pycache__", "weights"}
_LICENCES: Final = ("LICENSE", "NOTICE")
_HEADERS: Final = {
    # Nothing of other hosts, whatever an image's metadata or an answer might say.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Permissions-Policy": "camera=(self)",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Requested again each time, so that page and service are always of the same version.
    "Cache-Control": "no-cache",
}


def mount_page(app: FastAPI) -> None:
    """Adds the page, its files, the JavaScript client and the source; open to everyone who
    reaches the port.
    """
    router = APIRouter(include_in_schema=False)
    zipping = asyncio.Lock()

    @router.get("/")
    async def page() -> FileResponse:
        return FileResponse(
            _WEB / "index.html", media_type="text/html; charset=utf-8", headers=_HEADERS
        )

    @router.get("/source")
    async def source() -> Response:
        """The running source code, which the AGPL requires us to offer; without weights."""
        async with zipping:  # once, however many ask for it
            archive = await asyncio.to_thread(_archive)
        disposition = {"Content-Disposition": 'attachment; filename="sdpose-source.zip"'}
        return Response(archive, media_type="application/zip", headers=disposition)

    @router.get("/sdpose-client.tgz")
    async def client_package() -> Response:
        """The JavaScript client, for `npm install`."""
        return Response(_client_package(), media_type="application/gzip")

    app.include_router(router)
    app.mount("/web", _PageFiles(directory=_WEB))


class _PageFiles(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, *rest: object
    ) -> Response:
        """As the framework's, with the page's headers."""
        response = super().file_response(full_path, stat_result, *rest)  # type: ignore[arg-type]
        response.headers.update(_HEADERS)
        return response


@cache
def _client_package() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(_WEB / "client", "package", filter=_without_owner)  # the folder's name for npm
    return file.getvalue()


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


@cache
def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in _OURS:
            for path in sorted(folder.rglob("*")):
                inner = path.relative_to(folder.parent)
                if path.is_file() and not _SKIPPED.intersection(inner.parts):
                    archive.write(path, str(inner))
        for file_of_package in distribution("sdpose-service").files or []:
            if file_of_package.name in _LICENCES:
                archive.write(str(file_of_package.locate()), file_of_package.name)
    return file.getvalue()
