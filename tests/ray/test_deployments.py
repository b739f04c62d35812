"""The files under deploy/ray fit Ray's own schema and each other."""

from pathlib import Path
from typing import Any

import yaml
from ray.serve.schema import ServeDeploySchema

from entrypoints.settings import read_settings

DEPLOY = Path(__file__).parents[2] / "deploy" / "ray"


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_ray_takes_the_configuration() -> None:
    (application,) = ServeDeploySchema.model_validate(loaded("serve.yaml")).applications
    assert application.import_path == "entrypoints.ray.serving:app"
    assert {deployment.name for deployment in application.deployments} == {"Ingress", "Encoder"}


def test_an_ingress_replica_gets_more_requests_than_it_takes() -> None:
    (application,) = loaded("serve.yaml")["applications"]
    ingress = next(each for each in application["deployments"] if each["name"] == "Ingress")
    # Else Ray would queue what the service itself should refuse with 503.
    assert ingress["max_ongoing_requests"] > read_settings({}).max_requests


def test_kubernetes_gets_the_same_configuration() -> None:
    service = loaded("rayservice.yaml")
    assert service["kind"] == "RayService"
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == loaded("serve.yaml")
