"""A camera in a container: serves one image over and over as MJPEG. Needs nothing but Python.

python mjpeg_camera.py IMAGE PORT
"""

from __future__ import annotations

import http.server
import sys
import time
from pathlib import Path

_PAUSE_S = 0.2


class _Camera(http.server.BaseHTTPRequestHandler):
    part = b""

    def do_GET(self) -> None:
        """The image, until the reader leaves."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            while True:
                self.wfile.write(self.part)
                time.sleep(_PAUSE_S)
        except OSError:
            return


if __name__ == "__main__":
    picture = Path(sys.argv[1]).read_bytes()
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    _Camera.part = head.encode() + picture + b"\r\n"
    http.server.ThreadingHTTPServer(("", int(sys.argv[2])), _Camera).serve_forever()
