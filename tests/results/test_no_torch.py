"""A report reads results without the seconds that torch takes."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from ragcun_cli import results


def test_the_package_is_read_without_torch() -> None:
    names = [f"ragcun_cli.results.{module.name}" for module in pkgutil.iter_modules(results.__path__)]
    assert len(names) > 8
    program = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
