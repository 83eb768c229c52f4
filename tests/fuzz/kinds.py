"""What is read, from what seeds, by whom, and what it may answer."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import resource
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc
import httpx
import numpy as np
import torch
from PIL import Image as PillowImage

from sdpose_client.v1 import pose_pb2
from sdpose_core.checkpoints import CheckpointError, read_checkpoint, save_student
from sdpose_core.data.coco import load_coco
from sdpose_core.data.coco_file import read_coco
from sdpose_core.data.shards import load_shards
from sdpose_core.detector.protocol import DetectorError
from sdpose_core.detector.weights import read_safetensors
from sdpose_core.model import Student, StudentConfig
from sdpose_core.vision.image_files import ImageLimits
from service.access.keys import KeyFileError, read_key_file
from service.cameras.settings import CameraFileError, read_camera_file
from service.errors import ErrorCode, ServiceError
from service.pipeline.decoding import ImageDecoder
from service.scheduling.budget import ByteBudget
from tests.fakes import PNG
from tests.fuzz import values
from tests.fuzz.damage import damaged
from tests.pictures import animated_gif, corners, encoded, jpeg_with_orientation
from tests.service.processes import resident
from tests.train.people import coco_folder, crop_samples, write_shards

Try = Callable[[bytes], str]
"""Gives one input to its reader; the answer in a word. Anything that it raises is a fault."""


Reader = tuple[Try, Callable[[], int]]
"""With it, the memory in bytes of the process that reads."""


def most_memory() -> int:
    """The most that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Kind:
    """Inputs of one kind: `opened` yields its reader, `seeds` are good ones.

    `made` makes an input; without it a seed is damaged.
    """

    seeds: tuple[bytes, ...]
    opened: Callable[[], contextlib.AbstractContextManager[Reader]]
    made: Callable[[random.Random], bytes] | None = None

    def input(self, name: str, number: int) -> bytes:
        """The same for the same number, on every machine."""
        dice = random.Random(f"{name} {number}")
        return self.made(dice) if self.made is not None else damaged(dice, self.seeds)


def _pictures() -> Kind:
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    photo = PillowImage.fromarray(noise).resize((480, 320))
    seeds = [jpeg_with_orientation(6, kind) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")]
    seeds += [encoded(corners(), kind) for kind in ("GIF", "BMP", "TIFF")]
    seeds += [animated_gif(), encoded(photo, "JPEG", progressive=True), encoded(photo, "JPEG")]
    seeds += [encoded(photo.convert(mode), "JPEG") for mode in ("CMYK", "L")]
    seeds += [encoded(photo.convert(mode), "PNG") for mode in ("P", "LA", "RGBA", "1", "I;16")
              if mode != "I;16"]  # fmt: skip
    seeds.append(
        encoded(PillowImage.fromarray(np.arange(1536, dtype=np.uint16).reshape(32, 48)), "PNG")
    )
    seeds += [encoded(photo, "WEBP", lossless=True), encoded(photo.convert("RGBA"), "WEBP")]
    seeds += [encoded(photo, "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "packbits")]

    @contextmanager
    def opened() -> Iterator[Reader]:
        limits = ImageLimits(max_bytes=2**20, max_pixels=1_000_000)
        budget = ByteBudget(2**28, "pictures", lambda: None)
        decoder = ImageDecoder(limits, budget, least_side=160, crop_size=(192, 256))

        def read(data: bytes) -> str:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    image = decoder.decode(data, whole=False)
                except ServiceError as error:
                    return _of(
                        error, "invalid_image", "unsupported_media_type", "payload_too_large"
                    )
            assert image.pixels.dtype == np.uint8
            assert image.pixels.shape[2] == 3
            return "ok"

        yield read, most_memory

    return Kind(tuple(seeds), opened)


def _of(error: ServiceError, *codes: str) -> str:
    assert error.code.value in codes, f"{error.code.value}: {error.message}"
    return error.code.value


_CALLERS_FAULT = {
    code.value
    for code in ErrorCode
    if code not in (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED)
}


BOUNDS = {"SDPOSE_MAX_IMAGE_MB": "0.2", "SDPOSE_MAX_REQUEST_MB": "0.5"}


def _http(kind: str) -> Callable[[], contextlib.AbstractContextManager[Reader]]:
    @contextmanager
    def opened() -> Iterator[Reader]:
        with values.service(**BOUNDS) as (pid, port, _, _), httpx.Client() as client:
            url = f"http://127.0.0.1:{port}/pose"

            def read(data: bytes) -> str:
                headers = {"Content-Type": kind}
                answer = client.post(url, content=data, headers=headers, timeout=20)
                if answer.status_code == 200:
                    body = answer.json()
                    assert "people" in body or "results" in body
                    return "ok"
                code = str(answer.json()["code"])
                # Where the input sets a deadline, damage may make it a very short one.
                own = code == "deadline_exceeded" and b"deadline_ms" in data
                assert own or code in _CALLERS_FAULT, f"{answer.status_code}: {answer.text}"
                return code

            yield read, partial(resident, pid)

    return opened


def _multipart() -> Kind:

    def form(*parts: tuple[str, bytes]) -> bytes:
        body = b""
        for head, value in parts:
            body += b"--edge\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n"
            body += value + b"\r\n"
        return body + b"--edge--\r\n"

    image = ('name="image"; filename="a.png"', PNG)
    seeds = (
        form(image),
        form(image, image, ('name="boxes"', b"[[[1, 1, 6, 6]], null]")),
        form(image, ('name="max_people"', b"3"), ('name="deadline_ms"', b"5000")),
    )
    return Kind(seeds, _http("multipart/form-data; boundary=edge"))


def _json_bodies() -> Kind:
    text = base64.b64encode(PNG).decode()
    values: list[object] = [
        {"image": text, "max_people": 2, "min_score": 0.5, "cycles": 1},
        {"image": [text, f"data:image/png;base64,{text}"], "boxes": [[[1, 1, 6, 6]], None]},
        {"image": text, "boxes": [{"x": 1, "y": 1, "width": 5, "height": 5}], "flip_test": True},
    ]
    return Kind(tuple(json.dumps(value).encode() for value in values), _http("application/json"))


def _messages() -> Kind:
    options = pose_pb2.PoseOptions(max_people=2, min_score=0.5, cycles=1)
    box = pose_pb2.Box(x=1, y=1, width=5, height=5)
    seeds = (
        pose_pb2.EstimatePoseRequest(image=PNG, options=options).SerializeToString(),
        pose_pb2.EstimatePoseRequest(
            image=PNG, boxes=pose_pb2.Boxes(boxes=[box, box])
        ).SerializeToString(),
    )

    @contextmanager
    def opened() -> Iterator[Reader]:
        with (
            values.service(**BOUNDS) as (pid, _, port, _),
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            call = channel.unary_unary("/sdpose.v1.PoseService/EstimatePose")

            def read(data: bytes) -> str:
                try:
                    call(data, timeout=20)
                except grpc.RpcError as error:
                    refusal = error
                else:
                    return "ok"
                code = values.code_of(refusal)
                assert code in _CALLERS_FAULT, f"{refusal.code()}: {refusal.details()}"
                return code

            yield read, partial(resident, pid)

    return Kind(seeds, opened)


def _files(
    seeds: tuple[bytes, ...], suffix: str, read: Callable[[Path], object], *theirs: type[Exception]
) -> Kind:
    """Files of one suffix; `theirs` is what the reader may raise, in a sentence that names it."""

    @contextmanager
    def opened() -> Iterator[Reader]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"input{suffix}"

            def given(data: bytes) -> str:
                path.write_bytes(data)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        read(path)
                    except theirs as error:
                        refusal = str(error)
                    else:
                        return "ok"
                assert path.name in refusal, f"the file is not named: {refusal}"
                return "refused"

            yield given, most_memory

    return Kind(seeds, opened)


def _checkpoints() -> Kind:
    tiny = StudentConfig("tiny", depth=1, train_cycles=1, embed_dim=8, mlp_dim=8, head_dim=8)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "a.safetensors"
        save_student(Student(tiny), ours)
        return _files((ours.read_bytes(),), ".safetensors", read_checkpoint, CheckpointError)


def _official() -> Kind:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        weights = {"backbone.conv1.weight": torch.zeros(4, 3, 3, 3), "head.bias": torch.ones(3)}
        torch.save({"state_dict": weights, "meta": {"epoch": 3}}, path)
        return _files((path.read_bytes(),), ".pth", read_checkpoint, CheckpointError)


def _detectors() -> Kind:
    from sdpose_core.embedded import DETECTOR

    return _files((DETECTOR.read_bytes(),), ".safetensors", read_safetensors, DetectorError)


def _shards() -> Kind:
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        small = [replace(one, image=encoded(corners(), "JPEG")) for one in crop_samples(2)]
        for name, samples in (("large", crop_samples(3)), ("small", small)):
            (path,) = write_shards(Path(folder) / name, samples)
            seeds.append(path.read_bytes())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("a.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    seeds.append(packed.getvalue())
    return _files(tuple(seeds), ".tar", lambda path: load_shards([path]), ValueError)


def _coco() -> Kind:
    with tempfile.TemporaryDirectory() as folder:
        annotations, images = coco_folder(Path(folder), images=2)
        seed = annotations.read_bytes()

    def read(path: Path) -> None:
        read_coco(path)
        with contextlib.suppress(FileNotFoundError):
            load_coco(path, images)

    return _files((seed,), ".json", read, ValueError)


def _key_files() -> Kind:
    seed = (
        f'["kiosk"]\nsha256 = "{"5a" * 32}"\nrequests_per_second = 20\nexpires = 2031-01-31\n'
        f'scopes = ["pose", "admin"]\n["door"]\nsha256 = "{"6b" * 32}"\nmax_streams = 3\n'
    )
    return _files((seed.encode(),), ".toml", read_key_file, KeyFileError)


def _camera_files() -> Kind:
    seed = (
        '[[camera]]\nname = "door"\naddress = "rtsp://10.0.0.5/stream1"\nfps = 10\n'
        "[camera.config]\ntracking = true\ndetect_every = 5\n"
    )
    return _files(
        (seed.encode(),), ".toml", lambda path: read_camera_file(path, 16), CameraFileError
    )


def _values(
    opened: Callable[[], contextlib.AbstractContextManager[Reader]],
    choose: Callable[[random.Random], tuple[object, ...]],
    good: tuple[object, ...],
) -> Callable[[], Kind]:
    return lambda: Kind((values.written(good),), opened, lambda dice: values.written(choose(dice)))


VALUES: dict[str, tuple[Callable[[], Kind], int]] = {
    "values over REST": (
        _values(values.rest_reader, values.rest_input, ("query", "max_people", "1")),
        40,
    ),
    "values over WebSocket": (
        _values(values.socket_reader, values.socket_input, ("frame", "timestamp", 1.0)),
        20,
    ),
    "values over gRPC": (
        _values(values.rpc_reader, values.rpc_input, ("estimate", {}, [])),
        40,
    ),
}
"""As `KINDS`, of the inputs that are tried with `--values`."""

KINDS: dict[str, tuple[Callable[[], Kind], int]] = {
    "pictures": (_pictures, 40),
    "multipart": (_multipart, 10),
    "json": (_json_bodies, 10),
    "messages": (_messages, 10),
    "checkpoints": (_checkpoints, 6),
    "official checkpoints": (_official, 4),
    "detectors": (_detectors, 4),
    "shards": (_shards, 6),
    "COCO files": (_coco, 6),
    "key files": (_key_files, 2),
    "camera files": (_camera_files, 2),
}
"""Each kind with its share of the inputs, in hundredths."""
