"""Image files and parameters out of an HTTP request, with every bound checked on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.admission.door import Admission
from service.errors import ErrorCode, ServiceError, invalid_argument, shortened
from service.json_text import JsonBound
from service.parameters import each_once
from service.rest.json_body import MAX_FIELDS, parse_json

_MAX_FIELD_BYTES = 2**20
IMAGE_FIELD = "image"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds in bytes, in images, and in the values of a JSON body."""

    max_request_bytes: int
    max_image_bytes: int
    max_images: int
    max_values: int


@dataclass(frozen=True, slots=True)
class PoseBody:
    """The image files in their order, and the raw parameters from query and form."""

    images: list[bytes]
    parameters: dict[str, str]


_Parsed: TypeAlias = tuple[list[bytes], dict[str, str]]
Parse: TypeAlias = Callable[[Callable[[], _Parsed]], Awaitable[_Parsed]]
"""Runs the reading of a JSON body off the event loop."""


async def read_body(
    request: Request, limits: BodyLimits, admission: Admission, parse: Parse
) -> PoseBody:
    """Reads a multipart form, a raw image or a JSON object, which its `admission` then holds.

    Raises `ServiceError` unsupported_media_type (another content type), payload_too_large,
    invalid_argument or overloaded, and what `CallMiddleware` raises of a body that does not come.
    """
    parameters = each_once(request.query_params.multi_items())
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await _parse_form(request, limits, admission)
        try:
            images, fields = await _split(form)
        finally:
            await form.close()
        return PoseBody(images, _joined(parameters, each_once(fields), "the form"))
    if kind == "application/json":
        bound, pieces = JsonBound(limits.max_values, "body"), list[bytes]()
        async for chunk in _bounded(request, limits.max_request_bytes, admission):
            bound.add(chunk)
            pieces.append(chunk)
        images, given = await parse(partial(parse_json, pieces, IMAGE_FIELD, limits.max_images))
        admission.hold(sum(map(len, images)))
        return PoseBody(images, _joined(parameters, given, "the JSON object"))
    if kind.startswith("image/") or kind == "application/octet-stream":
        most = min(limits.max_image_bytes, limits.max_request_bytes)
        chunks = [chunk async for chunk in _bounded(request, most, admission)]
        return PoseBody([b"".join(chunks)], parameters)
    raise ServiceError(
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        f"send multipart/form-data with a file named {IMAGE_FIELD}, the image itself as image/*, "
        f"or application/json with {IMAGE_FIELD} in base64; "
        f"got {shortened(kind) if kind else 'no content type'}",
    )


def _joined(query: dict[str, str], body: dict[str, str], where: str) -> dict[str, str]:
    for name in body:
        if name in query:
            raise invalid_argument(name, f"given twice, in the query and in {where}")
    return {**query, **body}


async def _bounded(request: Request, most: int, admission: Admission) -> AsyncIterator[bytes]:
    """The body in pieces; rejected by its announced size, else as soon as it exceeds the limit."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        if int(announced) > most:
            raise _too_large(most)
        admission.expect(int(announced))
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most:
            raise _too_large(most)
        admission.hold(len(chunk))
        yield chunk


async def _parse_form(request: Request, limits: BodyLimits, admission: Admission) -> FormData:
    parser = MultiPartParser(
        Headers(scope=request.scope),
        _bounded(request, limits.max_request_bytes, admission),  # type: ignore[arg-type]
        max_files=limits.max_images,
        max_fields=MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    # The whole body is bounded, so files stay in memory: a detour over the disk costs more.
    parser.spool_max_size = limits.max_request_bytes + 1
    try:
        return await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = error.message if isinstance(error, MultiPartException) else str(error)
        if message.startswith("Too many files"):
            raise ServiceError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"more than the {limits.max_images} images allowed",
                field=IMAGE_FIELD,
            ) from None
        if message.startswith("Part exceeded"):
            raise ServiceError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"a field of the form is larger than the {_MAX_FIELD_BYTES} bytes allowed",
                field="body",
            ) from None
        raise invalid_argument("body", f"not a readable multipart form: {message}") from None


async def _split(form: FormData) -> tuple[list[bytes], list[tuple[str, str]]]:
    images: list[bytes] = []
    fields: list[tuple[str, str]] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != IMAGE_FIELD:
                raise invalid_argument(name, f"files are expected under the name {IMAGE_FIELD}")
            images.append(await value.read())
        elif name == IMAGE_FIELD:
            raise invalid_argument(IMAGE_FIELD, "expected a file, got a plain field")
        else:
            fields.append((name, value))
    if not images:
        raise invalid_argument(IMAGE_FIELD, "no image in the form")
    return images, fields


def _too_large(most: int) -> ServiceError:
    return ServiceError(
        ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than the {most} bytes allowed"
    )
