"""Who asks how runs stand waits for no torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from ragcun_cli import runs


def test_the_package_is_read_without_torch() -> None:
    names = [f"ragcun_cli.runs.{module.name}" for module in pkgutil.iter_modules(runs.__path__)]
    assert names
    program = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
