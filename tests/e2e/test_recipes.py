"""The recipes under `deploy/recipes`, as far as they go without the programs that they are for.

What they send is sent to the real server, and what they make of the response is looked at. The
scripts are run as they are.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import jinja2
import numpy as np
import openai
import playwright
import pytest
import yaml

from tests.support.footage import scene
from tests.support.frigate import TIMEOUT_S, FrigateLlamaCpp, frigate_vllm
from tests.support.photos import as_file
from tests.support.servers import Server

RECIPES = Path(__file__).parents[2] / "deploy" / "recipes"
SERVER = "http://clip-server:8093"
NODE = Path(playwright.__file__).parent / "driver" / "node"
"""The one that comes with Playwright, so that none need be installed."""

USUAL = as_file(scene(light=0.9), "JPEG", quality=92)
UNUSUAL = as_file(scene(light=0.9, visitor="delivery_truck"), "JPEG", quality=92)


@pytest.fixture
def usual(server: Server, tmp_path: Path) -> Path:
    """A file with the baseline of a scene."""
    frames = [
        ("images", as_file(scene(light=light, sway=sway), "PNG"))
        for light, sway in ((1.0, 0), (0.95, 2), (0.9, -2), (0.85, 1), (0.8, 3))
    ]
    made = httpx.post(f"{server.url}/baseline", files=frames, timeout=60).json()
    path = tmp_path / "usual.json"
    path.write_text(json.dumps(made["baseline_embedding"]))
    return path


def frigates(name: str, server: Server) -> dict[str, Any]:
    """The provider of embeddings in one of Frigate's files, at the tests' server."""
    config = yaml.safe_load((RECIPES / "frigate" / name).read_text())
    assert config["semantic_search"]["enabled"] is True
    provider: dict[str, Any] = config["genai"][config["semantic_search"]["model"]]
    assert provider["roles"] == ["embeddings"]
    assert provider["provider"] == Path(name).stem
    provider["base_url"] = provider["base_url"].replace(SERVER, server.url)
    return provider


def test_frigate_by_llamacpp(server: Server) -> None:
    provider = frigates("llamacpp.yml", server)
    with httpx.Client(timeout=TIMEOUT_S) as http:
        client = FrigateLlamaCpp(http, provider["base_url"], provider["model"])
        text, image = client.embed(["a delivery truck"], [UNUSUAL])
    assert text.shape == image.shape == (768,)


def test_frigate_by_vllm(server: Server) -> None:
    provider = frigates("vllm.yml", server)
    with openai.OpenAI(base_url=provider["base_url"], api_key=provider["api_key"]) as client:
        assert frigate_vllm(client, image=UNUSUAL).shape == (768,)
    assert provider["model"] == "clip"


def render(template: str, **variables: Any) -> str:
    """What Home Assistant makes of a template, with its filter `from_json`."""
    environment = jinja2.Environment(autoescape=False)

    def from_json(text: str, default: Any) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return default

    environment.filters["from_json"] = from_json
    return environment.from_string(template).render(**variables)


@pytest.fixture
def home(server: Server, tmp_path: Path, usual: Path) -> dict[str, Any]:
    """Home Assistant's package, its commands pointed at the tests' server and folder."""
    usual.rename(tmp_path / "drive-usual.json")
    text = (RECIPES / "home-assistant" / "clip.yaml").read_text()
    text = text.replace(SERVER, server.url).replace("/config/clip/", f"{tmp_path}/")
    package: dict[str, Any] = yaml.safe_load(text)
    return package


def reported(home: dict[str, Any], command: str) -> dict[str, str]:
    """The data of the event that the automation around a command sends."""
    ran = subprocess.run(
        home["shell_command"][command], shell=True, capture_output=True, text=True, check=False
    )
    for automation in home["automation"]:
        actions = [action.get("action") for action in automation["actions"]]
        if f"shell_command.{command}" in actions:
            event = automation["actions"][-1]
            return {
                name: render(template, response={"stdout": ran.stdout})
                for name, template in event["event_data"].items()
            }
    raise AssertionError(f"nothing runs {command}")


def test_home_assistants_sensor_follows_the_drive(home: dict[str, Any], tmp_path: Path) -> None:
    scores = []
    for picture in (USUAL, UNUSUAL):
        (tmp_path / "drive.jpg").write_bytes(picture)
        scores.append(float(reported(home, "clip_drive")["score"]))
    quiet, visited = scores
    assert quiet < 0.1 < visited
    (tmp_path / "drive.jpg").write_bytes(b"no picture")
    assert reported(home, "clip_drive") == {"score": "None"}  # which makes it unavailable


def test_home_assistants_gate(home: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "gate.jpg").write_bytes(USUAL)
    told = reported(home, "clip_gate")["is"]
    assert told in {"an open gate", "a closed gate"}
    template = home["template"][1]["binary_sensor"][0]["state"]
    state = render(template, trigger={"event": {"data": {"is": told}}})
    assert state == str(told == "an open gate")


def test_home_assistants_package_hangs_together(home: dict[str, Any]) -> None:
    commands = {f"shell_command.{name}" for name in home["shell_command"]}
    used = {
        action["action"]
        for automation in home["automation"]
        for action in automation["actions"]
        if "action" in action
    }
    assert commands == {name for name in used if name.startswith("shell_command.")}
    sent = {
        action["event"]
        for automation in home["automation"]
        for action in automation["actions"]
        if "event" in action
    }
    heard = {trigger["event_type"] for entry in home["template"] for trigger in entry["triggers"]}
    assert sent == heard
    ids = [automation["id"] for automation in home["automation"]]
    assert len(set(ids)) == len(ids)


NODE_RED = """
const { code, msg } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const warnings = [];
const node = { warn: (text) => warnings.push(text) };
const sent = new Function("msg", "node", code)(msg, node);
console.log(JSON.stringify({ sent, warnings }));
"""


def function(code: str, msg: dict[str, Any]) -> dict[str, Any]:
    """What a function node of Node-RED sends on and warns of."""
    ran = subprocess.run(
        [NODE, "-e", NODE_RED],
        input=json.dumps({"code": code, "msg": msg}),
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def test_node_reds_flow(server: Server) -> None:
    flow = json.loads((RECIPES / "node-red" / "flow.json").read_text())
    nodes = {node["id"]: node for node in flow}
    assert len(nodes) == len(flow)
    wired = {target for node in flow for port in node.get("wires", ()) for target in port}
    assert wired == nodes.keys() - {"clip-tab", "clip-every"}
    question, result = nodes["clip-question"]["func"], nodes["clip-answer"]["func"]

    asked = function(question, {"statusCode": 200})["sent"]
    url = asked["url"].replace(SERVER, server.url)
    response = httpx.post(url, content=USUAL, headers=asked["headers"], timeout=60)
    told = function(result, {"statusCode": response.status_code, "payload": response.json()})
    assert isinstance(told["sent"]["payload"]["open"], bool)
    assert 0.5 <= told["sent"]["payload"]["score"] <= 1

    refused = httpx.post(url, content=b"no picture", headers=asked["headers"], timeout=60)
    told = function(result, {"statusCode": refused.status_code, "payload": refused.json()})
    assert told == {"sent": None, "warnings": [refused.json()["detail"]]}
    missing = function(question, {"statusCode": 404})
    assert missing == {"sent": None, "warnings": ["no snapshot: 404"]}


def test_n8ns_workflow(server: Server, usual: Path) -> None:
    workflow = json.loads((RECIPES / "n8n" / "workflow.json").read_text())
    nodes = {node["name"]: node for node in workflow["nodes"]}
    assert len({node["id"] for node in workflow["nodes"]}) == len(nodes)
    reached = {
        target["node"]
        for outputs in workflow["connections"].values()
        for output in outputs["main"]
        for target in output
    }
    assert reached == nodes.keys() - {"Every minute"}
    snapshot = nodes["Snapshot"]["parameters"]["options"]["response"]["response"]
    asked = nodes["Anomaly score"]["parameters"]
    fields = {field["name"]: field for field in asked["bodyParameters"]["parameters"]}
    assert fields["image"]["inputDataFieldName"] == snapshot["outputPropertyName"]
    texts = {name: field["value"] for name, field in fields.items() if "value" in field}
    texts["baseline_embedding"] = usual.read_text()
    (condition,) = nodes["Unusual?"]["parameters"]["conditions"]["conditions"]
    field = re.fullmatch(r"=\{\{ \$json\.(\w+) \}\}", condition["leftValue"])
    assert field is not None
    for picture, unusual in ((USUAL, False), (UNUSUAL, True)):
        response = httpx.request(
            asked["method"],
            asked["url"].replace(SERVER, server.url),
            data=texts,
            files={"image": picture},
            timeout=60,
        )
        assert response.json()[field[1]] is unusual


@pytest.fixture
def ffmpeg() -> str:
    path = shutil.which("ffmpeg")
    if path is None:
        pytest.skip("ffmpeg is not installed; the recipe for any camera needs it")
    return path


def footage(path: Path, ffmpeg: str, pictures: list[bytes], *, of_each: int) -> Path:
    """A video, a frame a second, that shows each picture for so many frames."""
    frames = b"".join(picture for picture in pictures for _ in range(of_each))
    command = [ffmpeg, "-loglevel", "error", "-f", "image2pipe", "-framerate", "1", "-i", "-"]
    subprocess.run([*command, "-c:v", "mpeg4", "-q:v", "2", path], input=frames, check=True)
    return path


def script(name: str, *arguments: object, server: Server) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["sh", RECIPES / "camera" / name, *map(str, arguments)],
        env={**os.environ, "CLIP_SERVER": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Camera(BaseHTTPRequestHandler):
    """Serves one picture again and again as MJPEG."""

    picture = USUAL

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.picture)}\r\n\r\n"
        try:
            while True:
                self.wfile.write(head.encode() + self.picture + b"\r\n")
                time.sleep(0.05)
        except ConnectionError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[str]:
    """The address of an MJPEG stream."""
    Camera.picture = USUAL
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/video.mjpg"
        http.shutdown()


def test_any_camera_by_scripts(server: Server, camera: str, ffmpeg: str, tmp_path: Path) -> None:
    lights = [as_file(scene(light=light), "JPEG") for light in (1.0, 0.95, 0.9, 0.85, 0.8)]
    video = footage(tmp_path / "day.mp4", ffmpeg, lights, of_each=2)
    baseline = tmp_path / "usual.json"
    building = script("baseline.sh", video, baseline, 5, 2, server=server)
    said, failed = building.communicate(timeout=120)
    assert building.returncode == 0, failed
    assert said.startswith("frames: 5 suggested threshold: 0.")
    assert np.linalg.norm(json.loads(baseline.read_text())) == pytest.approx(1, abs=1e-5)

    watching = script("watch.sh", camera, baseline, 0.15, 0.2, server=server)
    assert watching.stdout is not None
    assert watching.stderr is not None
    try:
        assert json.loads(watching.stdout.readline())["is_anomaly"] is False
        Camera.picture = UNUSUAL
        while not json.loads(watching.stdout.readline())["is_anomaly"]:
            pass
        assert watching.stderr.readline().endswith(": unusual\n")
    finally:
        watching.terminate()
        watching.communicate(timeout=30)


def test_a_script_says_what_the_server_refuses(server: Server, ffmpeg: str, tmp_path: Path) -> None:
    video = footage(tmp_path / "one.mp4", ffmpeg, [USUAL], of_each=2)
    elsewhere = Server(server.process, server.url + "/nowhere", server.log_file)
    building = script("baseline.sh", video, tmp_path / "usual.json", 2, 1, server=elsewhere)
    _, failed = building.communicate(timeout=120)
    assert building.returncode != 0
    assert "404" in failed
    assert not (tmp_path / "usual.json").exists()


def test_the_recipes_ask_what_there_is(server: Server) -> None:
    """Every address of the server in the recipes' files is one of its endpoints."""
    known = httpx.get(f"{server.url}/docs/openapi.json").json()["paths"]
    found = set()
    for file in RECIPES.rglob("*"):
        if file.is_file():
            text = file.read_text()
            found |= set(re.findall(r"(?:clip-server:8093|\$server)(/[\w/-]+)", text))
    assert found >= {"/anomaly-score", "/classify", "/baseline"}
    assert {urlsplit(path).path for path in found} <= {*known, "/v1"}
