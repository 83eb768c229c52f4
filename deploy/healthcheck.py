"""Exit status 0 when the service in this container takes work; needs nothing but Python."""

import http.client
import os
import sys


def healthy(port: int) -> bool:
    """Whether `/readyz` on this machine answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(int(os.environ.get("SDPOSE_HTTP_PORT", "8000"))) else 1)
