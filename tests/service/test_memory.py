"""Memory of a real process while many clients send large bodies slowly, over both front ends."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import grpc
import pytest

from sdpose_client import GrpcPoseClient, RestPoseClient, Retry
from sdpose_client.v1 import pose_pb2
from tests.fakes import PNG
from tests.service.processes import a_process, free_port, resident

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc"
)
BUDGET_MB = 64
EACH = 19 * 2**20
CLIENTS = 40
REFUSED = {"429", "413", "RESOURCE_EXHAUSTED"}


async def over_http(port: int, answers: list[str]) -> None:
    """All but the last byte of a large body, in pieces; then nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {EACH}\r\n"
    )
    writer.write(f"{head}\r\n".encode())
    sent, piece = 0, bytes(256 * 1024)

    async def send() -> None:
        nonlocal sent
        while sent < EACH - len(piece):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(0.005)

    sending = asyncio.create_task(send())
    try:
        answers.append((await reader.readline()).decode().split(" ", 2)[1])
    except (ConnectionError, IndexError):
        answers.append("closed")
    finally:
        sending.cancel()
        writer.transport.abort()


async def over_grpc(port: int, answers: list[str]) -> None:
    """A large message; gRPC sends as fast as the service takes it in."""
    message = pose_pb2.EstimatePoseRequest(image=bytes(EACH)).SerializeToString()
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary("/sdpose.v1.PoseService/EstimatePose")
        try:
            await call(message, timeout=100)
            answers.append("answered")
        except grpc.aio.AioRpcError as error:
            answers.append(error.code().name)


async def flood(http_port: int, grpc_port: int, pid: int, seconds: float) -> tuple[int, list[str]]:
    """The most memory that the process had, and how the clients fared; until some were told."""
    answers: list[str] = []
    clients = [asyncio.create_task(over_http(http_port, answers)) for _ in range(CLIENTS)]
    clients += [asyncio.create_task(over_grpc(grpc_port, answers)) for _ in range(CLIENTS)]
    most, end = 0, time.monotonic() + seconds
    # At least so long, and until one was refused for memory, which a busy machine does late.
    while time.monotonic() < end or not (
        REFUSED & set(answers) or all(client.done() for client in clients)
    ):
        most = max(most, resident(pid))
        await asyncio.sleep(0.02)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return most, answers


def test_a_flood_of_slow_large_uploads_stays_under_the_limit() -> None:
    """1.5 GB are on their way at the same time, of which 64 MiB may be in memory."""
    http_port, grpc_port = free_port(), free_port()
    settings = {"SDPOSE_MAX_MEMORY_MB": str(3 * BUDGET_MB), "MALLOC_ARENA_MAX": "2"}
    with a_process(http_port, grpc_port, **settings) as running:
        with (
            RestPoseClient(f"http://127.0.0.1:{http_port}", retry=Retry(attempts=1)) as rest,
            GrpcPoseClient(f"127.0.0.1:{grpc_port}", retry=Retry(attempts=1)) as rpc,
        ):
            assert len(rest.estimate(PNG).people) == len(rpc.estimate(PNG).people) == 1
            before = resident(running.pid)
            most, answers = asyncio.run(flood(http_port, grpc_port, running.pid, 8.0))
            # Beside the budget: 64 KiB of each stream that is not read yet, receive buffers of
            # HTTP connections that are not read any more, and what the allocator keeps.
            assert most - before < (2 * BUDGET_MB + 64) * 2**20, (
                f"{(most - before) / 2**20:.0f} MiB"
            )
            assert REFUSED & set(answers), answers
            end = time.monotonic() + 60
            while True:  # and all of it is over when the clients are gone
                try:
                    assert len(rest.estimate(PNG).people) == len(rpc.estimate(PNG).people) == 1
                    break
                except Exception:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.2)
        assert running.poll() is None
        os.kill(running.pid, 0)
