"""The Helm chart: Helm installs it, Kubernetes' schemas accept it, and it fits the service."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

pytest.importorskip("kubernetes_validate", reason="comes with `make test-all`")

import kubernetes_validate

from service.settings import Settings
from tests.commands import need, run_command
from tests.deploy.helm import LIBRARY, NAMESPACE, Installed, install
from tools.lock import ROOT

CHART = ROOT / "deploy" / "kubernetes" / "sdpose"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
CUSTOM = ("PrometheusRule", "ServiceMonitor", "ScaledObject")
EVERYTHING: dict[str, Any] = {
    "device": "gpu",
    "image": {"repository": "registry.example/pose", "tag": "1.2"},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"max_batch": 32, "cycles": 1, "tracing": True, "max_image_mb": 1.5},
    "keys": {"file": 'label = "a"\n'},
    "tls": {"secret": "pose-tls", "requireClientCertificate": True},
    "runtimeClassName": "nvidia",
    "nodeSelector": {"gpu": "yes"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "podAnnotations": {"team": "vision"},
    "rollout": {"maxSurge": 0},
    "autoscaling": {"kind": "hpa"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {
        "callers": [{"podSelector": {"matchLabels": {"app": "shop"}}}],
        "operators": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}],
    },
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
    ],
    "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
    "env": [{"name": "OTEL_SERVICE_NAME", "value": "pose"}],
    "envFrom": [{"secretRef": {"name": "otel"}}],
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "65m"},
        "host": "pose.example.org",
        "tlsSecret": "outside-tls",
        "grpc": {"host": "grpc.pose.example.org"},
    },
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
}
CAMERAS = {"replicas": 1, "cameras": '[[camera]]\nname = "door"\n'}

pytestmark = [
    pytest.mark.slow("Helm and Kubernetes' schemas, 1 min"),
    pytest.mark.skipif(not LIBRARY.is_dir(), reason="no Helm here: `make setup-all` brings it"),
]


@cache
def _installed(values: str) -> Installed:
    return install(CHART, json.loads(values))


def installed(values: dict[str, Any] | None = None) -> Installed:
    made = _installed(json.dumps({"keys": {"existingSecret": "pose-keys"}} | (values or {})))
    assert made.error == ""
    return made


def container(made: Installed) -> dict[str, Any]:
    pod = made.one("Deployment")["spec"]["template"]["spec"]
    return pod["containers"][0]  # type: ignore[no-any-return]


def environment(made: Installed) -> dict[str, str]:
    env = container(made)["env"]
    return {each["name"]: each["value"] for each in env if each["name"].startswith("SDPOSE_")}


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, CAMERAS, {"autoscaling": {"kind": "keda"}}, {"keys": {"open": True}}],
    ids=["default", "everything", "cameras", "keda", "open"],
)
def test_kubernetes_schemas_accept_every_object(values: dict[str, Any]) -> None:
    objects = installed(values).objects
    assert len(objects) >= 6
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "test"
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, "1.36", strict=True)


def test_the_check_would_find_a_wrong_field() -> None:
    wrong = json.loads(json.dumps(installed().one("Deployment")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        kubernetes_validate.validate(wrong, "1.36", strict=True)


def test_what_comes_by_default() -> None:
    made = installed()
    kinds = sorted((each["kind"], each["metadata"]["name"]) for each in made.objects)
    assert kinds == [
        ("Deployment", "test-sdpose"),
        ("NetworkPolicy", "test-sdpose"),
        ("PodDisruptionBudget", "test-sdpose"),
        ("Service", "test-sdpose"),
        ("Service", "test-sdpose-grpc"),
        ("Service", "test-sdpose-metrics"),
        ("ServiceAccount", "test-sdpose"),
    ]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert container(made)["image"] == f"sdpose:{version}-cpu"
    assert "WARNING" not in made.notes


def test_it_is_open_only_where_that_is_asked() -> None:
    assert "keys: name a Secret with a key file (keys.existingSecret)" in _installed("{}").error
    for empty in ({"file": ""}, {"existingSecret": ""}, {"open": False}):
        assert "keys.open: true" in _installed(json.dumps({"keys": empty})).error
    made = installed({"keys": {"open": True}})
    assert "SDPOSE_KEY_FILE" not in environment(made)
    assert "WARNING: keys.open lets everyone in who reaches the Service." in made.notes


def test_a_model_and_other_variables_come_with_it() -> None:
    made = installed(EVERYTHING)
    pod = made.one("Deployment")["spec"]["template"]["spec"]
    assert EVERYTHING["volumes"][0] in pod["volumes"]
    assert EVERYTHING["volumeMounts"][0] in container(made)["volumeMounts"]
    assert EVERYTHING["env"][0] in container(made)["env"]
    assert container(made)["envFrom"] == EVERYTHING["envFrom"]


def test_callers_come_from_outside_by_two_names() -> None:
    made = installed(EVERYTHING)
    for ending, host, port, more in (
        ("", "pose.example.org", "http", {}),
        (
            "-grpc",
            "grpc.pose.example.org",
            "grpc",
            {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"},
        ),
    ):
        ingress = made.one("Ingress", ending)
        given = {"nginx.ingress.kubernetes.io/proxy-body-size": "65m", **more}
        assert given.items() <= ingress["metadata"]["annotations"].items()
        assert (ending == "-grpc") == ("GRPC" in ingress["metadata"]["annotations"].values())
        spec = ingress["spec"]
        assert spec["ingressClassName"] == "nginx"
        assert spec["tls"] == [
            {"hosts": ["pose.example.org", "grpc.pose.example.org"], "secretName": "outside-tls"}
        ]
        (rule,) = spec["rules"]
        assert rule["host"] == host
        (path,) = rule["http"]["paths"]
        assert path["backend"]["service"] == {"name": "test-sdpose", "port": {"name": port}}
        assert port in {each["name"] for each in made.one("Service")["spec"]["ports"]}
    plain = installed({"ingress": {"enabled": True, "host": "pose.example.org"}})
    assert "tls" not in plain.one("Ingress")["spec"]
    assert not [each for each in installed().objects if each["kind"] == "Ingress"]


def test_alerts_and_dashboard_are_those_of_compose() -> None:
    made = installed(EVERYTHING)
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    assert made.one("PrometheusRule")["spec"] == rules
    # What they ask for: the job's name is that of the label which the monitor names.
    monitor = made.one("ServiceMonitor")["spec"]
    labels = made.one("Service", "-metrics")["metadata"]["labels"]
    assert 'job="sdpose"' in str(rules)
    assert labels[monitor["jobLabel"]] == "sdpose"
    dashboard = made.one("ConfigMap", "-dashboard")
    text = (ROOT / "deploy" / "grafana" / "dashboards" / "sdpose.json").read_text()
    assert dashboard["data"] == {"sdpose.json": text}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_an_image_is_named_by_what_stays() -> None:
    digest = "sha256:" + "0a" * 32
    made = installed({"image": {"repository": "r/pose", "digest": digest}})
    assert container(made)["image"] == f"r/pose@{digest}"
    always = installed({"image": {"tag": "gpu", "pullPolicy": "Always"}})
    assert container(always)["image"] == "sdpose:gpu"


def test_pods_may_do_as_little_as_possible() -> None:
    for made in (installed(), installed(EVERYTHING)):
        pod = made.one("Deployment")["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        (user,) = re.findall(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())
        assert pod["securityContext"]["runAsUser"] == int(user)
        assert pod["securityContext"]["runAsNonRoot"] is True
        inside = container(made)["securityContext"]
        assert inside["readOnlyRootFilesystem"] is True
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["capabilities"] == {"drop": ["ALL"]}
        mounts = {each["mountPath"]: each for each in container(made)["volumeMounts"]}
        assert all(each.get("readOnly") for path, each in mounts.items() if path != "/tmp")


def test_probes_and_drain() -> None:
    made = installed({"preStopSeconds": 7, "drainSeconds": 30})
    one = container(made)
    assert one["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert one["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert one["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    ports = {each["name"]: each["containerPort"] for each in one["ports"]}
    told = environment(made)
    assert str(ports["metrics"]) == told["SDPOSE_METRICS_PORT"]
    assert str(ports["http"]) == told["SDPOSE_HTTP_PORT"]
    assert str(ports["grpc"]) == told["SDPOSE_GRPC_PORT"]
    assert one["lifecycle"]["preStop"]["sleep"]["seconds"] == 7
    assert told["SDPOSE_DRAIN_SECONDS"] == "30"
    pod = made.one("Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 47


def test_services_reach_the_named_ports() -> None:
    made = installed()
    headless = made.one("Service", "-grpc")["spec"]
    assert headless["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in headless
    names = {each["name"] for each in container(made)["ports"]}
    labels = made.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    for ending in ("", "-grpc", "-metrics"):
        spec = made.one("Service", ending)["spec"]
        assert {each["targetPort"] for each in spec["ports"]} <= names
        assert spec["selector"].items() <= labels.items()
    assert "metrics" not in {each["name"] for each in made.one("Service")["spec"]["ports"]}


def test_every_variable_is_a_setting() -> None:
    known = {f"SDPOSE_{name.upper()}" for name in Settings.model_fields}
    for values in ({}, EVERYTHING, CAMERAS):
        assert set(environment(installed(values))) <= known


def test_settings_arrive_as_they_were_given() -> None:
    told = environment(installed(EVERYTHING))
    assert told["SDPOSE_MAX_BATCH"] == "32"
    assert told["SDPOSE_MAX_IMAGE_MB"] == "1.5"
    assert told["SDPOSE_TRACING"] == "true"
    large = environment(installed({"settings": {"max_memory_mb": 2000000}}))
    assert large["SDPOSE_MAX_MEMORY_MB"] == "2000000", "not 2e+06"


def test_a_gpu_pod_asks_for_its_gpu() -> None:
    made = installed(EVERYTHING)
    assert container(made)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container(made)["image"] == "registry.example/pose:1.2"
    strategy = made.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    assert "nvidia.com/gpu" not in container(installed())["resources"]["limits"]


def test_keys_and_certificates_are_mounted_where_the_service_looks() -> None:
    made = installed(EVERYTHING)
    told = environment(made)
    folders = {each["mountPath"] for each in container(made)["volumeMounts"]}
    for name in ("KEY_FILE", "TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA"):
        assert told[f"SDPOSE_{name}"].rsplit("/", 1)[0] in folders
    assert made.one("Secret", "-keys")["stringData"] == {"keys.toml": 'label = "a"\n'}
    volumes = made.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "keys", "secret": {"secretName": "test-sdpose-keys"}} in volumes
    own = installed({"keys": {"existingSecret": "mine"}})
    assert not [each for each in own.objects if each["kind"] == "Secret"]
    volumes = own.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "keys", "secret": {"secretName": "mine"}} in volumes


def test_scaling_on_the_wait_in_the_queues() -> None:
    made = installed(EVERYTHING)
    assert "replicas" not in made.one("Deployment")["spec"], "or an upgrade would undo the scaling"
    (metric,) = made.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "250m"}
    name = metric["pods"]["metric"]["name"]
    assert adapter_rule()["name"]["as"] == name
    scaled = installed({"autoscaling": {"kind": "keda"}}).one("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"] == {"name": "test-sdpose"}
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["threshold"] == "0.25"
    assert f'namespace="{NAMESPACE}"' in trigger["metadata"]["query"]
    assert "sdpose_queue_wait_seconds_bucket" in trigger["metadata"]["query"]


def adapter_rule() -> dict[str, Any]:
    """The rule that the guide gives for the Prometheus adapter."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), re.S)
    (block,) = (block for block in blocks if "metricsQuery" in block)
    (rule,) = yaml.safe_load(block)["rules"]["custom"]
    return rule  # type: ignore[no-any-return]


def for_pods(rule: dict[str, Any]) -> str:
    """What the adapter asks Prometheus for some pods."""
    series = rule["seriesQuery"].partition("{")[0]
    template = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
    return template.replace("<<.LabelMatchers>>", f'namespace="{NAMESPACE}",pod=~"a|b"')  # type: ignore[no-any-return]


def test_the_queries_on_prometheus(tmp_path: Path) -> None:
    need("promtool")

    def waits(pod: str, stage: str, le: str, each_10_s: int) -> dict[str, str]:
        labels = f'namespace="{NAMESPACE}",service="test-sdpose-metrics",pod="{pod}"'
        name = f'sdpose_queue_wait_seconds_bucket{{{labels},stage="{stage}",le="{le}"}}'
        return {"series": name, "values": f"7+{each_10_s}x30"}

    # a: 19 of 20 waits for the detector below 0.4 s, and none for the student; b: no requests.
    busy = [waits("a", "detect", le, n) for le, n in (("0.2", 0), ("0.4", 19), ("+Inf", 20))]
    calm = [waits("a", "pose", le, 20) for le in ("0.2", "0.4", "+Inf")]
    idle = [waits("b", "detect", le, 0) for le in ("0.2", "0.4", "+Inf")]
    (trigger,) = installed({"autoscaling": {"kind": "keda"}}).one("ScaledObject")["spec"][
        "triggers"
    ]
    a, b = ({"labels": f'{{pod="{pod}"}}', "value": wait} for pod, wait in (("a", 0.4), ("b", 0)))
    everywhere, nothing = ({"labels": "{}", "value": wait} for wait in (0.4, 0))
    hpa, keda = for_pods(adapter_rule()), trigger["metadata"]["query"]
    tests = [
        (busy + calm + idle, hpa, [a, b]),
        (busy + calm + idle, keda, [everywhere]),
        (idle, hpa, [b]),
        (idle, keda, [nothing]),
        ([], keda, [nothing]),
    ]
    path = tmp_path / "scaling.test.yml"
    cases = [
        {
            "interval": "10s",
            "input_series": series,
            "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": samples}],
        }
        for series, query, samples in tests
    ]
    path.write_text(yaml.safe_dump({"tests": cases}))
    done = run_command("promtool", "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_monitor_finds_the_metrics_service() -> None:
    made = installed(EVERYTHING)
    spec = made.one("ServiceMonitor")["spec"]
    labels = made.one("Service", "-metrics")["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    others = made.one("Service")["metadata"]["labels"]
    assert not spec["selector"]["matchLabels"].items() <= others.items()
    assert spec["endpoints"][0]["port"] == "metrics"
    assert made.one("ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"


def test_the_network_policy_names_callers_operators_and_ways_out() -> None:
    spec = installed(EVERYTHING).one("NetworkPolicy")["spec"]
    calls, metrics = spec["ingress"]
    assert calls["from"] == EVERYTHING["networkPolicy"]["callers"]
    assert metrics["from"] == EVERYTHING["networkPolicy"]["operators"]
    assert spec["egress"][1:] == EVERYTHING["networkPolicy"]["egress"]
    assert "from" not in installed().one("NetworkPolicy")["spec"]["ingress"][0]
    off = installed({"networkPolicy": {"enabled": False}})
    assert not [each for each in off.objects if each["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replica": 3}, "replica"),
        ({"device": "tpu"}, "device"),
        ({"settings": {"http_port": 9}}, "settings.http_port: the chart sets this one itself"),
        ({"settings": {"api_keys": "a"}}, "use keys.existingSecret"),
        ({"keys": {"file": "a", "existingSecret": "b"}}, "one of file, existingSecret and open"),
        ({"keys": {"file": "a", "open": True}}, "one of file, existingSecret and open"),
        ({"cameras": "a"}, "every pod would read them"),
        ({"tls": {"requireClientCertificate": True}}, "needs tls.secret"),
        ({"env": [{"name": "SDPOSE_API_KEYS", "value": "a"}]}, "give it in settings"),
        ({"ingress": {"enabled": True}}, "ingress.host: give the name"),
        ({"image": {"tag": "latest"}}, "image.tag: latest may come to mean another image"),
        ({"image": {"tag": "cpu"}}, "image.digest, or pullPolicy: Always"),
        ({"image": {"digest": "sha256:1"}}, "digest"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    keys = {} if "keys" in values else {"keys": {"existingSecret": "pose-keys"}}
    assert message in _installed(json.dumps(keys | values)).error


def test_every_value_is_explained() -> None:
    """A comment stands above each value of the top, or above the block that it is in."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(VALUES) == set(schema) - {"global"}
    for name, value in VALUES.items():
        if isinstance(value, dict) and "properties" in schema[name]:
            assert set(value) == set(schema[name]["properties"]), name
    assert sum(line.lstrip().startswith("#") for line in lines) > len(VALUES)
