"""The committed examples of nginx and Envoy, run on loopback with their own certificate."""

from __future__ import annotations

from pathlib import Path

import yaml

from tools.deployment.processes import run
from tools.deployment.prometheus import ROOT

NGINX = ROOT / "deploy" / "nginx"
ENVOY = ROOT / "deploy" / "envoy"
_FRAME = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/conf.d/*.conf;
}}
"""


def make_certificate(folder: Path) -> Path:
    """A key and a self-signed certificate for localhost; gives the certificate's path."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / "pose.crt"
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(folder / "pose.key"), "-out", str(certificate)),
            *("-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ]
    )
    return certificate


def fit_nginx(folder: Path, tls_port: int, backends: list[tuple[int, int]]) -> Path:
    """Writes the example with these ports below `folder`; gives the path of the main file.

    `backends` are the HTTP and gRPC ports of the processes.
    """
    tls, sites = folder / "tls", folder / "conf.d"
    make_certificate(tls)
    sites.mkdir(exist_ok=True)
    site = (NGINX / "sdpose.conf").read_text()
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{tls_port} ssl")
    site = site.replace("/etc/nginx/tls", str(tls))
    (sites / "sdpose.conf").write_text(site)
    upstreams = (NGINX / "upstreams-host.conf").read_text()
    for port, index in ((8000, 0), (8001, 1)):
        line = f"    server 127.0.0.1:{port} max_fails=0;\n"
        lines = [line.replace(str(port), str(backend[index])) for backend in backends]
        upstreams = upstreams.replace(line, "".join(lines))
    (sites / "upstreams.conf").write_text(upstreams)
    main = folder / "nginx.conf"
    main.write_text(_FRAME.format(folder=folder))
    return main


def fit_envoy(folder: Path, tls_port: int, backends: list[tuple[int, int]]) -> Path:
    """As `fit_nginx`, for the example of Envoy; its own port for the operator is left out."""
    make_certificate(folder / "tls")
    config = yaml.safe_load((ENVOY / "sdpose.yaml").read_text())
    del config["admin"]
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": tls_port}
    for cluster in config["static_resources"]["clusters"]:
        index = 1 if "grpc" in cluster["name"] else 0
        places = [{"address": "127.0.0.1", "port_value": backend[index]} for backend in backends]
        cluster["load_assignment"]["endpoints"] = [
            {"lb_endpoints": [{"endpoint": {"address": {"socket_address": one}}} for one in places]}
        ]
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config).replace("/etc/envoy/tls", str(folder / "tls")))
    return path
