"""Clients over REST."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, TypeVar

import httpx

from service.client.answers import Ask, Box, Keypoint, Person, PoseAnswer
from service.client.retry import Retry, deadline_from, left_s
from service.errors import ErrorCode, ServiceError, invalid_argument

T = TypeVar("T")
BoxesOfEach = Sequence[Sequence[Box] | None]

# The server ends at the deadline by itself and says so; the socket waits a little longer.
_GRACE_S = 1.0
_DEFAULT_TIMEOUT_S = 60.0
_NOTHING_ASKED = Ask()
# For answers that never reached our own code, such as those of a proxy in front of it.
_BY_STATUS = {
    401: ErrorCode.UNAUTHENTICATED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    429: ErrorCode.OVERLOADED,
    502: ErrorCode.UNAVAILABLE,
    503: ErrorCode.UNAVAILABLE,
    504: ErrorCode.UNAVAILABLE,
}
# Where an image goes alone, the service says of the request what it would say of the image.
_OF_AN_IMAGE = (
    ErrorCode.INVALID_IMAGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.INTERNAL,
)


class _Calls:
    """The part that sync and async share: requests out of values, values out of responses."""

    def __init__(self, api_key: str | None, retry: Retry | None) -> None:
        self.headers = {} if api_key is None else {"X-API-Key": api_key}
        self.retry = retry or Retry()

    @staticmethod
    def request(
        images: Sequence[bytes],
        ask: Ask,
        boxes: BoxesOfEach | None,
        left: float | None,
        request_id: str | None,
    ) -> dict[str, Any]:
        data = _fields(ask, boxes)
        if left is not None:
            data["deadline_ms"] = str(left * 1e3)
        timeout = httpx.Timeout((_DEFAULT_TIMEOUT_S if left is None else left) + _GRACE_S)
        headers = {} if request_id is None else {"X-Request-ID": request_id}
        if len(images) == 1:
            headers["Content-Type"] = "application/octet-stream"
            return {
                "content": images[0],
                "params": data,
                "timeout": timeout,
                "headers": headers,
            }
        files = [("image", (f"{index}", image)) for index, image in enumerate(images)]
        return {"files": files, "data": data, "timeout": timeout, "headers": headers}


class RestPoseClient:
    """Blocking client. `base_url` such as `http://localhost:8000`; close it, or use `with`."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url
        self._calls = _Calls(api_key, retry)
        self._http = httpx.Client(
            base_url=base_url, headers=self._calls.headers, transport=transport
        )

    def estimate(
        self,
        image: bytes,
        ask: Ask = _NOTHING_ASKED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> PoseAnswer:
        """The people of one image file. Raises `ServiceError`."""
        body = self._post("/pose", [image], ask, timeout_s, request_id)
        return _read(body, _answer)

    def estimate_many(
        self,
        images: Sequence[bytes],
        ask: Ask = _NOTHING_ASKED,
        *,
        boxes: BoxesOfEach | None = None,
        timeout_s: float | None = None,
    ) -> list[PoseAnswer | ServiceError]:
        """The people of several files in one request: an answer or an error each, in order.

        `boxes` holds the people known in each image, None where they are to be detected;
        `ask.boxes` instead means the same boxes in every image.

        A bad file gives its own error, and so does one that the service had no room for: nothing
        of it is tried again, and `retry_after_s` of the error says when that makes sense. Raises
        `ServiceError` where the request as a whole fails, after trying again as `Retry` says.
        """
        if not images:
            return []
        try:
            body = self._post("/pose", images, ask, timeout_s, None, _each(images, ask, boxes))
        except ServiceError as error:
            return _of_one(images, error)
        return _read(body, _answers)

    def overlay(
        self, image: bytes, ask: Ask = _NOTHING_ASKED, *, timeout_s: float | None = None
    ) -> bytes:
        """The image with its poses drawn, as JPEG. Raises `ServiceError`."""
        return self._post("/pose/overlay", [image], ask, timeout_s, None)

    def ready(self) -> bool:
        """Whether the service takes work now."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> RestPoseClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _post(
        self,
        path: str,
        images: Sequence[bytes],
        ask: Ask,
        timeout_s: float | None,
        request_id: str | None,
        boxes: BoxesOfEach | None = None,
    ) -> bytes:
        deadline, tried = deadline_from(timeout_s), 0
        while True:
            request = self._calls.request(images, ask, boxes, left_s(deadline), request_id)
            tried += 1
            try:
                return _checked(self._http.post(path, **request))
            except httpx.TransportError as error:
                trouble = _unreached(error)
            except ServiceError as error:
                trouble = error
            time.sleep(self._calls.retry.pause_s(tried, trouble, deadline))


class AsyncRestPoseClient:
    """The same on an event loop; close it, or use `async with`."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = _Calls(api_key, retry)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers=self._calls.headers,
            transport=transport,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    async def estimate(
        self,
        image: bytes,
        ask: Ask = _NOTHING_ASKED,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> PoseAnswer:
        """The people of one image file. Raises `ServiceError`."""
        body = await self._post("/pose", [image], ask, timeout_s, request_id)
        return _read(body, _answer)

    async def estimate_many(
        self,
        images: Sequence[bytes],
        ask: Ask = _NOTHING_ASKED,
        *,
        boxes: BoxesOfEach | None = None,
        timeout_s: float | None = None,
    ) -> list[PoseAnswer | ServiceError]:
        """As `RestPoseClient.estimate_many`."""
        if not images:
            return []
        try:
            body = await self._post(
                "/pose", images, ask, timeout_s, None, _each(images, ask, boxes)
            )
        except ServiceError as error:
            return _of_one(images, error)
        return _read(body, _answers)

    async def overlay(
        self, image: bytes, ask: Ask = _NOTHING_ASKED, *, timeout_s: float | None = None
    ) -> bytes:
        """The image with its poses drawn, as JPEG. Raises `ServiceError`."""
        return await self._post("/pose/overlay", [image], ask, timeout_s, None)

    async def ready(self) -> bool:
        """Whether the service takes work now."""
        try:
            return (await self._http.get("/readyz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncRestPoseClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _post(
        self,
        path: str,
        images: Sequence[bytes],
        ask: Ask,
        timeout_s: float | None,
        request_id: str | None,
        boxes: BoxesOfEach | None = None,
    ) -> bytes:
        deadline, tried = deadline_from(timeout_s), 0
        while True:
            request = self._calls.request(images, ask, boxes, left_s(deadline), request_id)
            tried += 1
            try:
                return _checked(await self._http.post(path, **request))
            except httpx.TransportError as error:
                trouble = _unreached(error)
            except ServiceError as error:
                trouble = error
            await asyncio.sleep(self._calls.retry.pause_s(tried, trouble, deadline))


def _each(images: Sequence[bytes], ask: Ask, boxes: BoxesOfEach | None) -> BoxesOfEach | None:
    if boxes is None:
        return None if ask.boxes is None else [ask.boxes] * len(images)
    if ask.boxes is not None:
        raise invalid_argument("boxes", "given twice, for all images and for each")
    if len(boxes) != len(images):
        raise invalid_argument("boxes", f"{len(boxes)} entries for {len(images)} images")
    return boxes


def _fields(ask: Ask, boxes: BoxesOfEach | None) -> dict[str, str]:
    fields = {
        name: str(value)
        for name in ("max_people", "min_score", "min_keypoint_score", "cycles", "priority")
        if (value := getattr(ask, name)) is not None
    }
    if ask.flip_test:
        fields["flip_test"] = "true"
    if boxes is not None:
        fields["boxes"] = json.dumps([None if each is None else _plain(each) for each in boxes])
    elif ask.boxes is not None:
        fields["boxes"] = json.dumps(_plain(ask.boxes))
    return fields


def _plain(boxes: Sequence[Box]) -> list[dict[str, float]]:
    return [asdict(box) for box in boxes]


def _checked(response: httpx.Response) -> bytes:
    if response.status_code == httpx.codes.OK:
        return response.content
    after = response.headers.get("retry-after", "")
    after_s = float(after) if after.isdecimal() else None
    try:
        body = response.json()
        code = ErrorCode(body["code"])
    except (ValueError, KeyError, TypeError):
        raise ServiceError(
            _BY_STATUS.get(response.status_code, ErrorCode.INTERNAL),
            f"an answer of status {response.status_code} that is not ours",
            retry_after_s=after_s,
        ) from None
    raise ServiceError(
        code, str(body.get("detail", "")), field=body.get("field"), retry_after_s=after_s
    )


def _unreached(error: httpx.TransportError) -> ServiceError:
    if isinstance(error, httpx.TimeoutException):
        return ServiceError(ErrorCode.DEADLINE_EXCEEDED, "no answer in time")
    return ServiceError(ErrorCode.UNAVAILABLE, f"the service cannot be reached: {error}")


def _answer(body: dict[str, Any]) -> PoseAnswer:
    return PoseAnswer(
        people=tuple(
            Person(
                Box(**person["box"]),
                person["score"],
                tuple(Keypoint(**point) for point in person["keypoints"]),
                person.get("id"),
            )
            for person in body["people"]
        ),
        width=body["image"]["width"],
        height=body["image"]["height"],
        timings_ms=body["timings_ms"],
        models=body["models"],
        request_id=body["request_id"],
    )


def _answers(value: dict[str, Any]) -> list[PoseAnswer | ServiceError]:
    if "results" not in value:
        return [_answer(value)]
    return [
        _error(entry["error"]) if "error" in entry else _answer(entry) for entry in value["results"]
    ]


def _error(entry: dict[str, Any]) -> ServiceError:
    return ServiceError(
        ErrorCode(entry["code"]),
        entry["detail"],
        field=entry.get("field"),
        retry_after_s=entry.get("retry_after_s"),
    )


def _of_one(images: Sequence[bytes], error: ServiceError) -> list[PoseAnswer | ServiceError]:
    if len(images) == 1 and error.code in _OF_AN_IMAGE:
        return [error]
    raise error


def _read(body: bytes, read: Callable[[dict[str, Any]], T]) -> T:
    try:
        return read(json.loads(body))
    except (ValueError, KeyError, TypeError):
        raise ServiceError(ErrorCode.INTERNAL, "an answer that is not ours") from None
