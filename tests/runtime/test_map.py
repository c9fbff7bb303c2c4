"""The folder's map names every module of it, and no other."""

import re
from pathlib import Path

from agent_graph import runtime


def test_the_map_is_complete() -> None:
    named = set(re.findall(r"`(\w+)`", runtime.__doc__ or ""))
    assert named == {path.stem for path in Path(runtime.__file__).parent.glob("*.py")} - {"__init__"}
