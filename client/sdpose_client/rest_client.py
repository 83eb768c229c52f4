"""Clients over REST."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx

from sdpose_client.answers import PoseAnswer, answer_of, answers_of, read_json
from sdpose_client.connections import checked_header, checked_url
from sdpose_client.errors import ServiceError
from sdpose_client.requests import Ask
from sdpose_client.rest_messages import (
    BoxesOfEach,
    boxes_of_each,
    checked_body,
    failed,
    fields_of,
    of_one_image,
)
from sdpose_client.retry import Retry

T = TypeVar("T")

# The server answers at the deadline; the socket waits a little longer.
_GRACE_S = 1.0
_DEFAULT_TIMEOUT_S = 60.0
_NOTHING_ASKED = Ask()


class _Calls:
    """The part that sync and async share: requests out of values, values out of responses."""

    def __init__(self, api_key: str | None, retry: Retry | None) -> None:
        key = checked_header("api_key", api_key)
        self.headers = {} if key is None else {"X-API-Key": key}
        self.retry = retry or Retry()

    @staticmethod
    def request(
        images: Sequence[bytes],
        ask: Ask,
        boxes: BoxesOfEach | None,
        left: float | None,
        request_id: str | None,
    ) -> dict[str, Any]:
        data = fields_of(ask, boxes)
        if left is not None:
            data["deadline_ms"] = str(left * 1e3)
        timeout = httpx.Timeout((_DEFAULT_TIMEOUT_S if left is None else left) + _GRACE_S)
        shown = checked_header("request_id", request_id)
        headers = {} if shown is None else {"X-Request-ID": shown}
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
    """Blocking client. `base_url` such as `http://localhost:8000`; close it, or use `with`.

    `tls` has the trusted CAs and the certificate to show over HTTPS, in place of the usual.
    """

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = checked_url("base_url", base_url)
        self._calls = _Calls(api_key, retry)
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=self._calls.headers,
            transport=transport,
            verify=tls or True,
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
        return read_json(body, answer_of)

    def estimate_many(
        self,
        images: Sequence[bytes],
        ask: Ask = _NOTHING_ASKED,
        *,
        boxes: BoxesOfEach | None = None,
        timeout_s: float | None = None,
    ) -> list[PoseAnswer | ServiceError]:
        """The people of several files in one request: an answer or an error each, in order.

        `boxes` holds the people known in each image, None to detect them;
        `ask.boxes` instead means the same boxes in every image.

        A bad file gives its own error, and so does one that the service had no room for: nothing
        of it is tried again, and `retry_after_s` of the error is the time to wait. Raises
        `ServiceError` if the request as a whole fails, after the tries of `Retry`.
        """
        if not images:
            return []
        try:
            body = self._post(
                "/pose", images, ask, timeout_s, None, boxes_of_each(images, ask, boxes)
            )
        except ServiceError as error:
            return of_one_image(images, error)
        return read_json(body, answers_of)

    def overlay(
        self, image: bytes, ask: Ask = _NOTHING_ASKED, *, timeout_s: float | None = None
    ) -> bytes:
        """The image with its poses drawn, as JPEG. Raises `ServiceError`."""
        return self._post("/pose/overlay", [image], ask, timeout_s, None)

    def models(self) -> dict[str, Any]:
        """The answer of `GET /models`: what is loaded. Raises `ServiceError`."""
        try:
            return read_json(checked_body(self._http.get("/models")), dict)
        except httpx.RequestError as error:
            raise failed(self.base_url, error) from None

    def ready(self) -> bool:
        """Whether the service takes work now."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.RequestError:
            return False

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> RestPoseClient:
        return self

    def __exit__(self, *_: object) -> None:
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
        def attempt(left: float | None) -> bytes:
            request = self._calls.request(images, ask, boxes, left, request_id)
            try:
                return checked_body(self._http.post(path, **request))
            except httpx.RequestError as error:
                raise failed(self.base_url, error) from None

        return self._calls.retry.run(attempt, timeout_s)


class AsyncRestPoseClient:
    """The same on an event loop; close it, or use `async with`."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        retry: Retry | None = None,
        tls: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = checked_url("base_url", base_url)
        self._calls = _Calls(api_key, retry)
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            headers=self._calls.headers,
            transport=transport,
            verify=tls or True,
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
        return read_json(body, answer_of)

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
                "/pose", images, ask, timeout_s, None, boxes_of_each(images, ask, boxes)
            )
        except ServiceError as error:
            return of_one_image(images, error)
        return read_json(body, answers_of)

    async def overlay(
        self, image: bytes, ask: Ask = _NOTHING_ASKED, *, timeout_s: float | None = None
    ) -> bytes:
        """The image with its poses drawn, as JPEG. Raises `ServiceError`."""
        return await self._post("/pose/overlay", [image], ask, timeout_s, None)

    async def models(self) -> dict[str, Any]:
        """The answer of `GET /models`: what is loaded. Raises `ServiceError`."""
        try:
            return read_json(checked_body(await self._http.get("/models")), dict)
        except httpx.RequestError as error:
            raise failed(self.base_url, error) from None

    async def ready(self) -> bool:
        """Whether the service takes work now."""
        try:
            return (await self._http.get("/readyz")).status_code == httpx.codes.OK
        except httpx.RequestError:
            return False

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncRestPoseClient:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        async def attempt(left: float | None) -> bytes:
            request = self._calls.request(images, ask, boxes, left, request_id)
            try:
                return checked_body(await self._http.post(path, **request))
            except httpx.RequestError as error:
                raise failed(self.base_url, error) from None

        return await self._calls.retry.run_async(attempt, timeout_s)
