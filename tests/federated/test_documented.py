"""The page about rounds: its examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "federated.md"


def test_the_examples_on_the_page_run(tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    code = "import torch\ntorch.set_num_threads(1)\n" + code
    code += "\nassert [found.index for found in first + rest + again] == [1, 2, 3, 4, 3]\nassert len(curve) == 3\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "north to east False" in done.stdout
