"""Exit status 0 when the service in this container takes work; needs nothing but Python."""

import http.client
import os
import sys
from collections.abc import Mapping


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port to ask, of the settings that the service itself reads."""
    host = environment.get("SDPOSE_HOST") or "127.0.0.1"
    # One that listens everywhere is asked on loopback; `::` may mean both families or one.
    host = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)
    return host, int(environment.get("SDPOSE_HTTP_PORT") or 8000)


def healthy(host: str, port: int) -> bool:
    """Whether `/readyz` there answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=3.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(*address(os.environ)) else 1)
