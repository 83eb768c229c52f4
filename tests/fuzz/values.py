"""Any number, text or bytes in any field of both protocols, at a service over a fake.

An input is what was chosen, pickled; `python -m tests.fuzz --kind KIND --only N` tries one again.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import grpc
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from sdpose_client.v1 import pose_pb2
from service.errors import ErrorCode
from service.parameters import PoseParameters
from service.streams.settings import StreamSettings
from tests.fakes import PNG
from tests.service.processes import a_process, free_port, resident

Reader = tuple[Callable[[bytes], str], Callable[[], int]]

_BASE64 = base64.b64encode(PNG).decode()
_OPTIONS = [*PoseParameters.model_fields, "boxes", "colour", ""]
_SETTINGS = [*StreamSettings.model_fields, "options", "colour"]
_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30)
_NUMBERS += (10**400, -(10**4000))
_FLOATS = (0.0, -0.0, 0.5, 1.0, 1e-9, 5e-324, -1.7e308, 1.7e308, 3.5e38, 1e19, 16777217.0)
_FLOATS += (float("nan"), float("inf"), -float("inf"))
_TEXTS = ("", " ", "auto", "none", "latest", "high", "low", "true", "1", "0.5", "1e400", "NaN")
_TEXTS += ("1_0", "0x10", "\u0663", "\uff11", "\x00", "a\x00b", "\ufeff1", "\U0001f600", "{}", "[]")
_TEXTS += ("[[1,1,6,6]]", "[[1e999,0,1,1]]", "null", "../../etc", "%00", "a" * 5000, "9" * 5000)
_HEADERS = ("X-API-Key", "Authorization", "X-Request-ID", "traceparent", "Content-Type", "Accept")
_HEADERS += ("Origin", "Expect", "Cookie", "Content-Encoding", "X-Forwarded-For", "Range", "Host")
_REFUSED = {
    code.value for code in ErrorCode if code not in (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE)
}


def value(dice: random.Random, depth: int = 2) -> object:
    """Anything that JSON can carry, and numbers that it cannot."""
    kind = dice.randrange(8 if depth else 6)
    if kind == 0:
        return dice.choice(_NUMBERS)
    if kind == 1:
        return dice.choice(_FLOATS)
    if kind == 2:
        return text(dice)
    if kind == 3:
        return dice.choice((True, False, None))
    if kind == 4:
        return dice.randrange(-(2 ** dice.randrange(70)), 2 ** dice.randrange(1, 70))
    if kind == 5:
        return dice.uniform(-1, 1) * 10.0 ** dice.randrange(-320, 308)
    many = [value(dice, depth - 1) for _ in range(dice.choice((0, 1, 4)))]
    if kind == 6:
        return many
    names = ("x", "y", "width", "height") if dice.random() < 0.5 else map(str, range(4))
    return dict(zip(names, many, strict=False))


def text(dice: random.Random) -> str:
    """Known trouble, or any characters."""
    if dice.random() < 0.7:
        return dice.choice(_TEXTS)
    most = dice.choice((0x80, 0x100, 0xD800, 0x110000))
    return "".join(map(chr, (dice.randrange(most) for _ in range(dice.randrange(12)))))


def number(dice: random.Random) -> float:
    """One that a field of floating point can hold."""
    return dice.choice(
        (dice.choice(_FLOATS), dice.uniform(-1, 1) * 10.0 ** dice.randrange(-320, 308))
    )


def rest_input(dice: random.Random) -> tuple[Any, ...]:
    """Where a value goes in a request over HTTP, and which."""
    way = dice.choice(("query", "form", "json", "json", "header", "camera", "path", "body"))
    name = dice.choice(_OPTIONS) if dice.random() < 0.95 else text(dice)
    if way == "header":
        return way, dice.choice(_HEADERS), text(dice)
    if way == "camera":
        return way, dice.choice(("name", "address", "fps", "config", "colour")), value(dice)
    if way == "body":
        return way, "application/json", json.dumps(value(dice))
    if way == "json":
        return way, dice.choice((name, "image")), value(dice)
    return way, name, text(dice) if dice.random() < 0.5 else json.dumps(value(dice))


def socket_input(dice: random.Random) -> tuple[Any, ...]:
    """A message of a stream over a WebSocket, or a query."""
    way = dice.choice(("frame", "frame", "frame", "config", "options", "message", "query", "bytes"))
    if way == "frame":
        return way, dice.choice(("sequence", "timestamp", "timestamp", "boxes", "x")), value(dice)
    if way == "bytes":
        return way, dice.choice((True, False)), dice.randbytes(dice.randrange(40))
    if way == "query":
        return way, dice.choice(_OPTIONS), text(dice)
    if way == "message":
        return way, dice.choice(("config", "frame", "colour")), value(dice)
    return way, dice.choice(_OPTIONS if way == "options" else _SETTINGS), value(dice)


def rpc_input(dice: random.Random) -> tuple[Any, ...]:
    """Fields of a message, single or of a stream, with what their types can hold."""
    way = dice.choice(("estimate", "estimate", "stream", "stream", "watch", "metadata"))
    options = {
        "max_people": dice.getrandbits(dice.randrange(1, 33)),
        "min_score": number(dice),
        "min_keypoint_score": number(dice),
        "cycles": dice.getrandbits(dice.randrange(1, 33)),
        "flip_test": dice.random() < 0.5,
        "priority": dice.randrange(-(2**31), 2**31) if dice.random() < 0.5 else dice.randrange(5),
        "suppress": dice.random() < 0.5,
    }
    options = {
        name: options[name] for name in dice.sample(list(options), dice.choice((0, 0, 1, 2)))
    }
    boxes = [[number(dice) for _ in range(4)] for _ in range(dice.choice((0, 0, 0, 1, 2)))]
    if way == "metadata":
        return way, dice.choice(("x-api-key", "authorization", "x-request-id")), text(dice)
    if way == "watch":
        return way, text(dice).encode(errors="replace").decode()
    if way == "estimate":
        return way, options, boxes
    config = {
        "tracking": dice.random() < 0.5,
        "detect_every": dice.getrandbits(dice.randrange(1, 33)),
        "drop": dice.randrange(-9, 9),
        "resume_token": text(dice).encode(errors="replace").decode(),
    }
    config = {name: config[name] for name in dice.sample(list(config), dice.choice((0, 0, 1)))}
    frames = []
    for _ in range(3):
        frame: dict[str, Any] = {}
        if dice.random() < 0.7:
            frame["timestamp"] = number(dice)
        if dice.random() < 0.2:
            frame["sequence"] = dice.getrandbits(dice.randrange(1, 65))
        frames.append(frame)
    return way, options, config, frames, boxes


def written(chosen: tuple[Any, ...]) -> bytes:
    """An input as bytes."""
    return pickle.dumps(chosen)


def _read_back(data: bytes) -> tuple[Any, ...]:
    chosen: tuple[Any, ...] = pickle.loads(data)
    return chosen


@contextmanager
def service(**settings: str) -> Iterator[tuple[int, int, int, Callable[[], None]]]:
    """Over a fake, in a process of its own: what it serves in is not what it is tried from.

    Gives the process, its ports, and a check that it wrote no line about a fault of its own.
    """
    http_port, grpc_port = free_port(), free_port()
    with tempfile.TemporaryFile() as log:
        settings |= {"SDPOSE_LOG_LEVEL": "error", "SDPOSE_CAMERA_ADDRESSES": "rtsp://127.0.0.1:9/*"}
        with a_process(http_port, grpc_port, stderr=log.fileno(), **settings) as running:
            seen = os.fstat(log.fileno()).st_size

            def clean() -> None:
                nonlocal seen
                size = os.fstat(log.fileno()).st_size
                if size > seen:
                    told = os.pread(log.fileno(), size - seen, seen).decode(errors="replace")
                    seen = size
                    assert '"error"' not in told, told[-3000:]
                    assert "Traceback" not in told, told[-3000:]

            yield running.pid, http_port, grpc_port, clean


@contextmanager
def rest_reader() -> Iterator[Reader]:
    with service() as (pid, port, _, clean):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

        def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
            client.putrequest(method, path, skip_host="Host" in headers)
            if body:
                client.putheader("Content-Length", str(len(body)))
            for name, given in headers.items():
                client.putheader(name.replace("_", "-"), given.encode("latin-1", "replace"))
            client.endheaders(body or None)
            answer = client.getresponse()
            return answer.status, answer.read()

        def given(way: str, name: str, what: Any) -> tuple[int, bytes]:
            if way == "query":
                pair = (
                    f"{quote(name, errors='surrogatepass')}={quote(what, errors='surrogatepass')}"
                )
                return ask("POST", f"/pose?{pair}", PNG, Content_Type="image/png")
            if way == "header":
                plain = what.replace("\r", "").replace("\n", "")
                return ask("POST", "/pose", PNG, **({"Content_Type": "image/png"} | {name: plain}))
            if way == "form":
                head = b'--e\r\nContent-Disposition: form-data; name="'
                parts = head + b'image"; filename="a"\r\n\r\n' + PNG + b"\r\n" + head
                parts += name.encode(errors="surrogatepass") + b'"\r\n\r\n'
                parts += what.encode(errors="surrogatepass") + b"\r\n--e--\r\n"
                return ask("POST", "/pose", parts, Content_Type="multipart/form-data; boundary=e")
            if way == "path":
                method = ("GET", "DELETE", "POST")[len(what) % 3]
                place = quote(what, safe="/?&", errors="surrogatepass")
                return ask(method, ("/", "/cameras/", "/pose/")[len(name) % 3] + place)
            if way == "body":
                return ask("POST", "/pose", what.encode(), Content_Type=name)
            good, path = {"image": _BASE64}, "/pose"
            if way == "camera":
                good, path = {"name": "a", "address": "rtsp://b/c"}, "/cameras"
            body = json.dumps({**good, name: what}).encode(errors="surrogatepass")
            return ask("POST", path, body, Content_Type="application/json")

        def read(data: bytes) -> str:
            try:
                status, body = given(*_read_back(data))
            except (http.client.HTTPException, OSError):  # the service may close after an answer
                client.close()
                status, body = given(*_read_back(data))
            clean()
            if status < 400:
                return "ok"
            code = "bad head" if status == 400 and body[:1] != b"{" else json.loads(body)["code"]
            assert code == "bad head" or code in _REFUSED, body
            return str(code)

        yield read, partial(resident, pid)


@contextmanager
def socket_reader() -> Iterator[Reader]:
    with service() as (pid, port, _, clean), contextlib.ExitStack() as stack:
        kept: list[ClientConnection] = []

        def stream(query: str = "") -> ClientConnection:
            address = f"ws://127.0.0.1:{port}/pose/stream{query}"
            return connect(address, compression=None, max_size=None, ping_interval=None)

        def send(connection: ClientConnection, way: str, name: Any, what: Any) -> None:
            if way == "bytes":
                return connection.send(what.decode("latin-1") if name else what)
            message: object = {name: what}
            if way != "message":
                message = {"options": message} if way == "options" else message
                message = {"frame" if way == "frame" else "config": message}
            connection.send(json.dumps(message))
            return connection.send(PNG)

        def read(data: bytes) -> str:
            way, name, what = _read_back(data)
            try:
                if way == "query":
                    pair = f"?{name}={quote(what, errors='surrogatepass')}"
                    kept.append(stack.enter_context(stream(pair)))
                elif not kept:
                    kept.append(stack.enter_context(stream()))
                if way == "query":
                    kept[0].send(PNG)
                else:
                    send(kept[0], way, name, what)
                answer = json.loads(kept[0].recv(timeout=20))
                code = answer.get("error", {}).get("code", "ok")
            except InvalidStatus as error:
                code = json.loads(error.response.body or b"{}").get("code")
            except ConnectionClosed as error:
                code = error.rcvd.reason.partition(":")[0] if error.rcvd else "no reason"
                kept.clear()
            if way in ("query", "config", "options", "message") and kept:
                kept.pop().close()  # settings come first, or not at all
            if not kept:
                stack.pop_all().close()
            clean()
            assert code == "ok" or code in _REFUSED, code
            return str(code)

        yield read, partial(resident, pid)


@contextmanager
def rpc_reader() -> Iterator[Reader]:
    with service() as (pid, _, port, clean), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        single = channel.unary_unary("/sdpose.v1.PoseService/EstimatePose", _bytes_of)
        several = channel.stream_stream("/sdpose.v1.PoseService/StreamPose", _bytes_of)
        watch = channel.unary_stream("/sdpose.v1.PoseService/WatchCamera", _bytes_of)

        def given(way: str, *rest: Any) -> None:
            if way == "metadata":
                key, what = rest
                pairs = [(key, "".join(filter(lambda c: " " <= c <= "~", what)).strip())]
                single(pose_pb2.EstimatePoseRequest(image=PNG), timeout=20, metadata=pairs)
            elif way == "watch":
                list(watch(pose_pb2.WatchCameraRequest(name=rest[0]), timeout=20))
            elif way == "estimate":
                single(
                    pose_pb2.EstimatePoseRequest(
                        image=PNG, options=_options(rest[0]), boxes=_boxes(rest[1])
                    ),
                    timeout=20,
                )
            else:
                options, config, frames, boxes = rest
                first = pose_pb2.StreamConfig(options=_options(options), **config)
                messages = [pose_pb2.StreamPoseRequest(config=first)]
                for frame in frames:
                    if "timestamp" in frame:
                        frame["timestamp"] = float(frame["timestamp"])
                    messages.append(pose_pb2.StreamPoseRequest(image=PNG, **frame))
                if boxes:
                    messages[-1].boxes.CopyFrom(_boxes(boxes))
                for data in several(iter(messages), timeout=20):
                    answer = pose_pb2.StreamPoseResponse.FromString(data)
                    assert answer.error.code in {"", *_REFUSED}, answer.error

        def read(data: bytes) -> str:
            try:
                given(*_read_back(data))
            except grpc.RpcError as error:
                refusal = error
            else:
                clean()
                return "ok"
            clean()
            code = code_of(refusal)
            assert code in _REFUSED, f"{refusal.code()}: {refusal.details()}"
            return code

        yield read, partial(resident, pid)


def code_of(refusal: grpc.RpcError) -> str:
    """The error code of ours, else the status of gRPC."""
    told = dict(refusal.trailing_metadata() or ())
    return str(told.get("sdpose-error-code", refusal.code().name))


def _bytes_of(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _options(given: dict[str, Any]) -> pose_pb2.PoseOptions:
    floats = {name: float(one) if "score" in name else one for name, one in given.items()}
    return pose_pb2.PoseOptions(**floats)


def _boxes(given: list[list[float]]) -> pose_pb2.Boxes | None:
    if not given:
        return None
    names = ("x", "y", "width", "height")
    boxes = [dict(zip(names, map(float, box), strict=True)) for box in given]
    return pose_pb2.Boxes(boxes=[pose_pb2.Box(**box) for box in boxes])
