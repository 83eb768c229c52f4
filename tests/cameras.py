"""A camera for tests: MJPEG over HTTP, which answers, hangs up or stays silent as told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np


def _part(number: int) -> bytes:
    image = np.full((48, 64, 3), number * 10 % 250, np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data + b"\r\n"


@contextmanager
def camera(frames: int, *, silent: bool = False, pause_s: float = 0.01) -> Iterator[str]:
    """An MJPEG camera over HTTP that hangs up after so many frames; `silent` never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                line, _ = listener.accept()
            except TimeoutError:
                continue
            with line:
                if silent:
                    over.wait(300)
                    continue
                try:
                    line.recv(4096)
                    kind = b"multipart/x-mixed-replace; boundary=frame"
                    line.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n")
                    for number in range(frames):
                        line.sendall(_part(number))
                        time.sleep(pause_s)
                        if over.is_set():
                            break
                except OSError:
                    pass  # the reader left

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{listener.getsockname()[1]}/live.mjpeg"
    finally:
        over.set()
        thread.join()
        listener.close()
