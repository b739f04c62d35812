"""The systemd unit, by systemd's own checks and by what the server knows."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from checks.image.dockerfile import ROOT
from entrypoints.server.server import CLOSE_SECONDS
from entrypoints.settings import read_settings

UNIT = ROOT / "deploy" / "systemd" / "clip-embedding-server.service"


def values(name: str) -> list[str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


def environment() -> dict[str, str]:
    return dict(value.split("=", 1) for value in values("Environment"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with programs and files that exist on any machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian's package systemd)")
    unit = tmp_path / UNIT.name
    text = UNIT.read_text().replace(values("ExecStart")[0], "/bin/true")
    unit.write_text(text.replace(f"Documentation={values('Documentation')[0]}\n", ""))
    return unit


def analyse(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_systemd_finds_nothing_wrong(here: Path) -> None:
    assert UNIT.name not in analyse("verify", str(here))


def test_systemd_calls_its_exposure_ok(here: Path) -> None:
    # In tenths; systemd calls all up to 4 "OK".
    analyse("security", "--offline=yes", "--threshold=20", "--no-pager", str(here))


def test_variables_mean_something_and_there_is_time_to_finish() -> None:
    settings = read_settings(environment())
    assert settings.warnings == ()
    (stop,) = values("TimeoutStopSec")
    assert float(stop) > settings.shutdown_grace_s + CLOSE_SECONDS
    (cache,) = values("CacheDirectory")
    assert settings.cache == Path("/var/cache", cache)
    assert settings.engine_path is not None
    assert settings.engine_path.is_relative_to(settings.cache)


def test_it_does_not_start_again_what_cannot_start() -> None:
    from entrypoints.commands import starting

    (status,) = values("RestartPreventExitStatus")
    assert f"sys.exit({status})" in Path(starting.__file__).read_text()


def test_a_process_that_stops_telling_the_watchdog_is_restarted() -> None:
    """What a hung call and a lost device end in: `tests/e2e/test_faulty_encoder.py` shows them."""
    (watchdog,) = values("WatchdogSec")
    assert float(watchdog) > 0
    assert values("NotifyAccess") == ["main"]  # the process itself may tell it
    (restart,) = values("Restart")
    # All that include the watchdog's time-out (systemd.service(5), table "Exit causes").
    assert restart in {"always", "on-failure", "on-abnormal", "on-watchdog"}


def test_it_is_a_unit() -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(UNIT.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]
