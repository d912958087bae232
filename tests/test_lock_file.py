"""requirements.txt pins the dependencies that setup.cfg declares."""

import re
from configparser import ConfigParser

from tests.support.processes import PROJECT


def test_every_dependency_is_pinned() -> None:
    setup = ConfigParser()
    setup.read(PROJECT / "setup.cfg", "utf-8")
    declared = re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.MULTILINE)
    pinned = re.findall(r"^([\w-]+)==", (PROJECT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    assert "tornado" in declared
    assert set(declared) <= set(pinned)
