"""Exit status 0 when the service in this container takes work; needs nothing but Python."""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping


def address(environment: Mapping[str, str]) -> tuple[str, int, bool]:
    """Host, port and whether it is encrypted, of the settings that the service itself reads."""
    host = environment.get("SDPOSE_HOST") or "127.0.0.1"
    # One that listens everywhere is asked on loopback; `::` may mean both families or one.
    host = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)  # noqa: S104 - compared
    if environment.get("SDPOSE_METRICS_PORT"):  # in plain HTTP whatever the other one is
        return host, int(environment["SDPOSE_METRICS_PORT"]), False
    encrypted = bool(environment.get("SDPOSE_TLS_CERTIFICATE"))
    return host, int(environment.get("SDPOSE_HTTP_PORT") or 8000), encrypted


def healthy(host: str, port: int, encrypted: bool = False) -> bool:
    """Whether `/readyz` there answers 200."""
    connection = http.client.HTTPConnection(host, port, timeout=3.0)
    if encrypted:
        # It is ourselves in this container, whose certificate is for another name.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=3.0, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(*address(os.environ)) else 1)
