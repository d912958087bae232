"""requirements.txt pins what setup.cfg declares, and no other file does."""

from __future__ import annotations

import re

from tests.support.processes import PROJECT


def test_requirements_are_the_only_lock_file() -> None:
    others = ("Pipfile.lock", "poetry.lock", "uv.lock", "pdm.lock", "runtime.txt")
    assert [name for name in others if (PROJECT / name).exists()] == []
    pinned = re.findall(r"^([\w-]+)==", (PROJECT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    declared = re.findall(
        r"^    ([\w-]+)[\[>=<]",
        (PROJECT / "setup.cfg").read_text("utf-8").partition("[options.package_data]")[0],
        re.MULTILINE,
    )
    assert declared
    assert set(declared) <= set(pinned)
