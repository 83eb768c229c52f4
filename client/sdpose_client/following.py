"""Base of the stream clients: following frames, closing, use as a context."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from sdpose_client.answers import StreamAnswer
from sdpose_client.blocking import iterate
from sdpose_client.frames import Frames
from sdpose_client.reconnect import Reconnect, follow
from sdpose_client.requests import Ask, StreamAsk

if TYPE_CHECKING:
    from typing_extensions import Self  # that of `typing` comes with Python 3.11


class AsyncFollowing(Protocol):
    """A client on an event loop; close it, or use `async with`."""

    def stream(
        self, frames: Frames, ask: Ask, stream: StreamAsk, /
    ) -> AsyncGenerator[StreamAnswer, None]:
        """The answers to the frames of one stream."""
        ...

    async def follow(
        self,
        frames: Frames,
        ask: Ask | None = None,
        stream: StreamAsk | None = None,
        *,
        reconnect: Reconnect | None = None,
    ) -> AsyncGenerator[StreamAnswer, None]:
        """As `stream`, on and on if the connection breaks: see `Reconnect`."""
        async with aclosing(follow(self.stream, frames, ask, stream, reconnect)) as answers:
            async for answer in answers:
                yield answer

    async def close(self) -> None:
        """Closes what stays open between streams, if anything does."""
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Following(Protocol):
    """A blocking client; close it, or use `with`."""

    _as_async: Callable[[], AsyncFollowing]

    def follow(
        self,
        frames: Frames,
        ask: Ask | None = None,
        stream: StreamAsk | None = None,
        *,
        reconnect: Reconnect | None = None,
    ) -> Generator[StreamAnswer, None, None]:
        """As `stream`, on and on if the connection breaks: see `Reconnect`."""

        async def answers() -> AsyncGenerator[StreamAnswer, None]:
            async with (
                self._as_async() as client,
                aclosing(client.follow(frames, ask, stream, reconnect=reconnect)) as followed,
            ):
                async for answer in followed:
                    yield answer

        return iterate(answers)

    def close(self) -> None:
        """Closes what stays open between streams, if anything does."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
