"""The service, the launch agent and the install script, as far as they can be checked unused."""

import plistlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.__main__ import build_parser

DEPLOY = Path(__file__).parent.parent / "edge" / "deploy"


def needs(program):
    found = shutil.which(program)
    return pytest.mark.skipif(found is None, reason=f"not run: {program} is not installed")


@needs("shellcheck")
def test_shellcheck_finds_nothing_in_the_install_script():
    done = subprocess.run(
        ["shellcheck", str(DEPLOY / "install.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@needs("systemd-analyze")
def test_the_unit_is_valid(tmp_path):
    # The program it starts is not installed here; everything else must be as systemd wants it.
    unit = (DEPLOY / "ser.service").read_text()
    assert "ExecStart=/opt/ser/venv/bin/python -m edge" in unit
    copy = tmp_path / "ser.service"
    copy.write_text(unit.replace("/opt/ser/venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "ser.service" in line]
    assert not complaints
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line",
    ["NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=on-failure", "User=ser",
     "SupplementaryGroups=audio", "PrivateNetwork=yes"],
)  # fmt: skip
def test_the_unit_may_do_no_more_than_it_needs(line):
    assert line in (DEPLOY / "ser.service").read_text().splitlines()


def test_the_launch_agent_is_valid_and_starts_the_program_again():
    agent = plistlib.loads((DEPLOY / "org.ser.edge.plist").read_bytes())
    assert agent["Label"] == "org.ser.edge"
    assert agent["ProgramArguments"][1:3] == ["-m", "edge"]
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    parsed = build_parser().parse_args(agent["ProgramArguments"][3:])
    assert parsed.json
    assert parsed.status_s == 3600  # its file would grow all night


def test_script_and_unit_speak_of_the_same_places():
    script, unit = ((DEPLOY / name).read_text() for name in ("install.sh", "ser.service"))
    prefix, user = (re.search(rf"^{name}=(\S+)", script, re.M)[1] for name in ("prefix", "user"))
    assert f"WorkingDirectory={prefix}\n" in unit
    assert f"ExecStart={prefix}/venv/bin/python" in unit
    assert f"User={user}\n" in unit


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("--what", 2)])
def test_the_script_explains_itself_without_doing_anything(argument, code):
    done = subprocess.run(
        ["bash", str(DEPLOY / "install.sh"), argument], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert "usage: install.sh" in done.stdout + done.stderr
