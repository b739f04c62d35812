"""What is missing is named with the command that adds it here, and never in a circle."""

import shlex
import subprocess
import sys

import pytest

from adapters.system.installation import install_command, is_installed

LOAD_WITHOUT = """
import sys
choice, *missing = sys.argv[1:]
for name in missing:
    sys.modules[name] = None  # as if it were not installed
from adapters.encoders.selection import EncoderChoice, EncoderSelection
from application.ports import EncoderUnavailable
try:
    EncoderSelection(EncoderChoice(choice), "builtin:demo", 768).load()
except EncoderUnavailable as refused:
    print(refused)
"""


def refusal(choice: str, *missing: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT, choice, *missing],
        capture_output=True,
        text=True,
        check=True,
    )
    (message,) = run.stdout.splitlines()
    return message


def test_the_command_is_for_this_python_and_this_installation() -> None:
    command = shlex.split(install_command("torch", "engine"))
    assert sys.executable in command
    assert command[-1].endswith("[torch,engine]")


def test_asking_for_the_command_leaves_distutils_alone() -> None:
    program = "import distutils; " + (
        "from adapters.system.installation import install_command; install_command('torch')"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], check=True)


def test_what_is_installed_is_known_without_importing_it() -> None:
    assert is_installed("numpy")
    assert not is_installed("no_such_module_as_this")


@pytest.mark.parametrize(
    ("choice", "missing", "named", "extra"),
    [
        ("auto", ["torch", "openvino"], "neither OpenVINO nor PyTorch is installed", "[cpu]"),
        ("torch", ["torch", "openvino"], "CLIP_ENCODER=torch needs PyTorch", "[torch]"),
        ("openvino", ["torch", "openvino"], "CLIP_ENCODER=openvino needs OpenVINO", "[cpu]"),
    ],
)
def test_no_advice_leads_to_the_next_refusal(
    choice: str, missing: list[str], named: str, extra: str
) -> None:
    message = refusal(choice, *missing)
    assert message.startswith(named)
    assert message.endswith((extra, f"{extra}'"))
    assert "or set" not in message


def test_another_runtime_is_offered_where_it_is_installed() -> None:
    assert refusal("torch", "torch").endswith(", or set CLIP_ENCODER=openvino")
