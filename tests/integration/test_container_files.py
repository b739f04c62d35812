"""The Dockerfile and the compose file: by linters, by schema, and by what the server knows."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from checks.image.dockerfile import DOCKERFILE, ROOT, decode_list, read_stages
from checks.image.root_file_system import context_files
from entrypoints.server.server import CLOSE_SECONDS
from entrypoints.settings import DECLARED, read_settings

STAGES = read_stages()
COMPOSE_FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def tool(*words: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name(words[0]))
    return subprocess.run([program, *words[1:]], text=True, capture_output=True, check=False)


def default_of(value: str) -> str:
    """What compose takes where nobody sets the variable."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_hadolint_finds_nothing() -> None:
    checked = tool("hadolint", str(DOCKERFILE))
    assert checked.returncode == 0, checked.stdout


def test_the_compose_file_fits_its_schema() -> None:
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_every_image_is_pinned_by_digest(target: str) -> None:
    pinned = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
    assert pinned.fullmatch(STAGES[target].base)
    for name, service in SERVICES.items():
        assert "build" in service or pinned.fullmatch(service["image"]), name


def test_both_images_are_alike_but_for_their_base() -> None:
    def what_counts(name: str) -> list[tuple[str, str]]:
        return [
            (step.name, step.value)
            for step in STAGES[name].steps
            if step.name != "LABEL" and "apt-get" not in step.value
        ]

    assert what_counts("cpu") == what_counts("gpu")
    assert [step.value for step in STAGES["cpu-build"].all("COPY")] == [
        step.value for step in STAGES["gpu-build"].all("COPY")
    ]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_suits_the_server(target: str) -> None:
    stage = STAGES[target]
    environment = stage.environment()
    settings = read_settings(environment)
    assert settings.warnings == ()
    assert (settings.host, str(settings.port)) == ("0.0.0.0", stage.last("EXPOSE").value)
    assert environment["HF_HOME"] == "/cache/huggingface"
    volumes = stage.last("VOLUME").words()
    assert any(str(settings.cache).startswith(f"{volume}/") for volume in volumes)
    assert any(settings.model_path.startswith(f"{volume}/") for volume in volumes)
    assert stage.last("USER").value == "10001:10001"
    assert (stage.last("ENTRYPOINT").words(), stage.last("CMD").words()) == (
        ["clip-server"],
        ["serve"],
    )
    health = stage.last("HEALTHCHECK")
    assert health.flags["start-period"] == "60s"
    assert decode_list(health.value.removeprefix("CMD"))[0] == "python3"


@pytest.mark.parametrize("build", ["cpu-build", "gpu-build"])
def test_the_extras_of_an_image_exist(build: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    wanted = STAGES[build].last("ARG").assignments()["EXTRAS"].split(",")
    assert set(wanted) <= extras


def test_a_builder_is_sent_the_code_and_nothing_else() -> None:
    files = set(context_files()) - {".dockerignore"}
    tracked = set(
        subprocess.run(
            ["git", "ls-files"], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
        ).stdout.splitlines()
    )
    code = ("domain/", "application/", "adapters/", "entrypoints/")
    not_served = ("adapters/models/demo/held_out/", "training/")
    expected = {path for path in tracked if path.startswith(code)}
    expected = {path for path in expected if not path.startswith(not_served)}
    expected |= {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE"}
    assert expected <= files
    assert {path for path in files if not path.startswith(code)} <= expected


@pytest.mark.parametrize("name", ["clip-cpu", "clip-gpu"])
def test_a_service_of_compose_suits_the_server(name: str) -> None:
    service = SERVICES[name]
    stage = STAGES[service["build"]["target"]]
    given = {
        key: default_of(value)
        for key, value in service["environment"].items()
        if value is not None  # taken from the environment of compose, if it is there
    }
    settings = read_settings(stage.environment() | given)
    assert settings.warnings == ()
    assert service["ports"][0].endswith(f":{settings.port}")
    stop = float(service["stop_grace_period"].removesuffix("s"))
    assert stop > settings.shutdown_grace_s + CLOSE_SECONDS
    assert {
        volume.split(":")[-2 if volume.endswith(":ro") else -1] for volume in service["volumes"]
    } == set(stage.last("VOLUME").words())
    if settings.engine_path is not None:
        assert settings.engine_path.is_relative_to("/cache")


@pytest.mark.parametrize("name", ["clip-cpu", "clip-gpu"])
def test_compose_passes_every_setting_on(name: str) -> None:
    service = SERVICES[name]
    fixed_by_the_image = {"HOST", "PORT", "CLIP_CACHE_DIR"}
    assert fixed_by_the_image <= set(STAGES[service["build"]["target"]].environment())
    declared = {each.about.name for each in DECLARED}
    passed = set(service["environment"])
    assert declared - fixed_by_the_image == passed - {"OTEL_EXPORTER_OTLP_ENDPOINT"}
    for variable, value in service["environment"].items():
        # Neither fixed nor under another name.
        assert value is None or value.startswith(f"${{{variable}:-"), variable


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_has_what_those_of_the_server_before_had(target: str) -> None:
    steps = " ".join(step.value for step in STAGES[target].steps)
    assert re.search(r"install -d -o clip -g clip [^&]*/cache/tensorrt", steps)
    assert re.search(r"apt-get install [^&]*\bcurl\b", steps)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_of_compose_can_do_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_files_that_compose_mounts_exist() -> None:
    mounted = {
        volume.split(":")[0]
        for name, service in SERVICES.items()
        if not name.startswith("clip-")
        for volume in service["volumes"]
        if volume.startswith("./")
    }
    assert len(mounted) == 3
    for path in mounted:
        assert (COMPOSE_FILE.parent / path).exists(), path


def test_the_default_profile_exists() -> None:
    (line,) = (COMPOSE_FILE.parent / ".env").read_text().splitlines()
    assert line.removeprefix("COMPOSE_PROFILES=") in SERVICES["clip-cpu"]["profiles"]


def test_prometheus_and_grafana_reach_what_they_show() -> None:
    deploy = COMPOSE_FILE.parent
    scraped = yaml.safe_load((deploy / "prometheus" / "prometheus.yaml").read_text())
    (target,) = scraped["scrape_configs"][0]["dns_sd_configs"]
    for name in ("clip-cpu", "clip-gpu"):
        assert target["names"] == SERVICES[name]["networks"]["default"]["aliases"]
    assert target["port"] == read_settings({}).port
    provisioning = deploy / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "clip.yaml").read_text())[
        "providers"
    ]
    places = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/dashboard.json" in places
