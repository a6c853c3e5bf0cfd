"""The script that installs everything and runs all tests."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
USED = ("bash", "env", "dirname", "mktemp", "tail")


@pytest.fixture
def commands(tmp_path):
    """A folder with the only commands that the script finds: no browser, and a user who is root."""
    for name in USED:
        (tmp_path / name).symlink_to(shutil.which(name))
    made(tmp_path / "id", "echo 0")
    return tmp_path


def made(file, text):
    file.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    file.chmod(0o755)


def run(commands):
    return subprocess.run(
        [shutil.which("bash"), SCRIPT], env={"PATH": str(commands)}, capture_output=True, text=True, check=False
    )


def test_without_a_browser_and_a_network_it_tries_twice_and_fails_with_one_line(commands):
    made(commands / "apt-get", f"echo tried >> {commands}/log; exit 100")
    ended = run(commands)
    assert ended.returncode == 1
    assert (commands / "log").read_text() == "tried\ntried\n"
    assert ended.stderr.splitlines() == [
        "error: the tests need Chromium, which could not be installed; run 'apt-get install chromium' as root"
    ]


def test_a_browser_that_is_missing_is_installed_before_anything_else(commands):
    (commands / "cp").symlink_to(shutil.which("cp"))
    browser, bash = commands / "chromium", commands / "bash"
    made(commands / "apt-get", f"echo $@ >> {commands}/log; [ $1 = update ] || cp {bash} {browser}")
    ended = run(commands)
    assert (commands / "log").read_text().splitlines()[-1] == "install -y --no-install-recommends chromium"
    assert "Chromium" not in ended.stderr  # it goes on, and finds no Python
    assert "python3" in ended.stderr
