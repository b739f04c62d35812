"""The manifests: by the API's schemas, and by what the server knows."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from checks.image.dockerfile import ROOT, read_stages
from entrypoints.server.server import CLOSE_SECONDS
from entrypoints.settings import read_settings

KUBERNETES = ROOT / "deploy" / "kubernetes"
NEWEST = "1.37"
OLDEST = "1.30"
"""The first that knows ``sleep`` before a container is stopped."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    kustomization = documents(KUBERNETES / "base" / "kustomization.yaml")[0]
    for name in kustomization["resources"]:
        for resource in documents(KUBERNETES / "base" / name):
            yield f"base/{name}", resource


def resource_of(kind: str) -> dict[str, Any]:
    (found,) = [resource for _, resource in resources() if resource["kind"] == kind]
    return found


def completed(resource: dict[str, Any]) -> dict[str, Any]:
    """With the selector and labels that kustomize adds, which the schemas ask for."""
    (labels,) = documents(KUBERNETES / "base" / "kustomization.yaml")[0]["labels"]
    if resource["kind"] == "Deployment":
        spec = resource["spec"]
        spec["selector"] = {"matchLabels": labels["pairs"]}
        spec["template"].setdefault("metadata", {})["labels"] = labels["pairs"]
    return resource


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = resource_of("Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(("file", "resource"), list(resources()))
def test_a_resource_fits_the_schema_of_the_api(
    file: str, resource: dict[str, Any], version: str
) -> None:
    kubernetes_validate.validate(completed(resource), version, strict=True)


def test_a_mistake_would_be_noticed() -> None:
    wrong = completed(resource_of("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


@pytest.mark.parametrize("overlay", ["base", "gpu"])
def test_what_kustomize_makes_fits_too(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which brings kustomize, is not installed")
    made = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / overlay)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout
    kinds = set()
    for resource in yaml.safe_load_all(made):
        kubernetes_validate.validate(resource, NEWEST, strict=True)
        kinds.add(resource["kind"])
        if resource["kind"] == "Deployment":
            (only,) = resource["spec"]["template"]["spec"]["containers"]
            target = "gpu" if overlay == "gpu" else "cpu"
            assert only["image"] == f"clip-embedding-server:{target}"
            assert ("nvidia.com/gpu" in only["resources"]["limits"]) == (overlay == "gpu")
            names = [variable["name"] for variable in only["env"]]
            assert ("CLIP_ENGINE_PATH" in names) == (overlay == "gpu")
    assert len(kinds) == 6


@pytest.mark.parametrize("file", ["base/deployment.yaml", "gpu/deployment.yaml"])
def test_variables_mean_something(file: str) -> None:
    (deployment,) = documents(KUBERNETES / file)
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = read_settings({entry["name"]: entry["value"] for entry in only["env"]})
    assert settings.warnings == ()


def test_a_pod_has_time_to_finish(pod: dict[str, Any], container: dict[str, Any]) -> None:
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    grace = read_settings(environment).shutdown_grace_s
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + grace + CLOSE_SECONDS


def test_probes_ask_what_the_server_answers(container: dict[str, Any]) -> None:
    paths = {
        probe: container[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "liveness", "readiness")
    }
    assert paths == {
        "startup": "/health/live",
        "liveness": "/health/live",
        "readiness": "/health/ready",
    }
    (port,) = container["ports"]
    assert port["containerPort"] == read_settings({}).port
    (service_port,) = resource_of("Service")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    assert service_port["port"] == port["containerPort"]


def test_a_pod_runs_as_the_user_of_the_image_and_writes_volumes_only(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    image = read_stages()["cpu"]
    context = pod["securityContext"]
    assert image.last("USER").value == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert context["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert places == {*image.last("VOLUME").words(), "/tmp"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_replicas_follow_a_metric_that_is_exposed() -> None:
    (metric,) = resource_of("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (rule,) = documents(KUBERNETES / "prometheus-adapter.yaml")[0]["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    source = (ROOT / "adapters" / "observability" / "prometheus_metrics.py").read_text()
    assert f'"{name}"' in source
    annotations = resource_of("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(read_settings({}).port)
    (monitor,) = documents(KUBERNETES / "service-monitor" / "service-monitor.yaml")
    (service_port,) = resource_of("Service")["spec"]["ports"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == service_port["name"]
    assert endpoint["path"] == annotations["prometheus.io/path"] == "/metrics"


def test_the_models_are_those_that_ray_mounts_too() -> None:
    claim = resource_of("PersistentVolumeClaim")["metadata"]["name"]
    assert f"claimName: {claim}" in (ROOT / "deploy" / "ray" / "rayservice.yaml").read_text()
