"""Helm itself, installing a chart into a cluster that only writes down what it is asked for.

Helm comes as the library in the wheel of helm-sdkpy, which the Makefile lays beside the virtual
environment. It has no `template`, so this stands in for the API server: it knows the kinds, holds
nothing, and accepts everything. What Helm creates there is the rendered chart, object by object.
A process of its own: the library brings Go's runtime with it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.commands import run_command

LIBRARY = Path(sys.prefix) / "helm"
NAMESPACE = "pose"
_KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "keda.sh/v1alpha1": {"ScaledObject": "scaledobjects"},
    "monitoring.coreos.com/v1": {
        "PrometheusRule": "prometheusrules",
        "ServiceMonitor": "servicemonitors",
    },
}


@dataclass(frozen=True)
class Installed:
    """What an installation made; `error` where Helm refused."""

    objects: list[dict[str, Any]]
    notes: str = ""
    error: str = ""

    def one(self, kind: str, ending: str = "") -> dict[str, Any]:
        """The object of a kind whose name ends so."""
        found = [
            each
            for each in self.objects
            if each["kind"] == kind and each["metadata"]["name"].endswith(f"sdpose{ending}")
        ]
        assert len(found) == 1, (kind, ending, [each["metadata"]["name"] for each in found])
        return found[0]


def install(chart: Path, values: dict[str, Any], release: str = "test") -> Installed:
    """Install a chart with these values."""
    asked = json.dumps({"chart": str(chart), "values": values, "release": release})
    command = [sys.executable, "-m", "tests.deploy.helm"]
    done = run_command(*command, input=asked)
    assert done.returncode == 0, done.stderr
    return Installed(**json.loads(done.stdout.splitlines()[-1]))


def _resources(path: str) -> dict[str, Any] | None:
    """What the cluster says of itself."""
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for group in _KINDS:
            if "/" in group:
                name, version = group.split("/")
                one = {"groupVersion": group, "version": version}
                groups.append({"name": name, "versions": [one], "preferredVersion": one})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    for group, kinds in _KINDS.items():
        if path == ("/api/v1" if group == "v1" else f"/apis/{group}"):
            resources = [
                {"name": plural, "singularName": "", "namespaced": True, "kind": kind}
                | {"verbs": ["create", "get", "list", "patch"]}
                for kind, plural in kinds.items()
            ]
            return {"kind": "APIResourceList", "groupVersion": group, "resources": resources}
    if path.endswith("/secrets"):  # where Helm keeps its releases: none yet
        return {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []}
    return None


class _Cluster(BaseHTTPRequestHandler):
    created: list[dict[str, Any]]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        found = _resources(urlsplit(self.path).path)
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}
        self._answer(404 if found is None else 200, found or missing | {"code": 404})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body.startswith(b"{"):  # Helm's own release is no JSON
            self.created.append(json.loads(body))
        self._answer(201, json.loads(body) if body.startswith(b"{") else {})

    do_PATCH = do_PUT = do_POST

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _main() -> None:
    asked = json.load(sys.stdin)
    sys.path.insert(0, str(LIBRARY))
    import helm_sdkpy

    _Cluster.created = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Cluster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"server": f"http://127.0.0.1:{server.server_port}"}
    context = {"cluster": "c", "user": "u"}
    access = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": address}],
        "contexts": [{"name": "c", "context": context}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(access, file)
        file.flush()
        cluster = helm_sdkpy.Configuration(namespace=NAMESPACE, kubeconfig=file.name)
        installing = helm_sdkpy.Install(cluster).run(
            asked["release"], asked["chart"], values=asked["values"], wait=False, timeout=20
        )
        try:
            told = asyncio.run(installing)
        except helm_sdkpy.HelmError as error:
            result = {"objects": [], "error": str(error)}
        else:
            result = {"objects": _Cluster.created, "notes": told["info"]["notes"]}
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    _main()
