"""Compare Python and the packages with the versions that the tests ran with."""

from __future__ import annotations

import platform
from pathlib import Path

from ragcun_cli.environment import REPORTED_PACKAGES, versions
from ragcun_cli.errors import UsageError
from ragcun_cli.preflight.checks import FAILED, OK, REMARK, Check

PACKAGE = Path(__file__).resolve().parent.parent
TESTED_PYTHON = ((3, 10), (3, 13))


def check_python() -> Check:
    """Check that the tests ran with this version of Python."""
    version = platform.python_version()
    if TESTED_PYTHON[0] <= tuple(map(int, version.split(".")[:2])) <= TESTED_PYTHON[1]:
        return Check("Python", OK, version)
    tested = " to ".join(".".join(map(str, each)) for each in TESTED_PYTHON)
    return Check("Python", REMARK, f"{version} (tested: {tested})", f"Use Python {tested}.")


def tested_versions() -> Path:
    """Return the list of tested versions: in a wheel it is inside the package, in a checkout beside it."""
    in_wheel = PACKAGE / "_constraints.txt"
    return in_wheel if in_wheel.is_file() else PACKAGE.parent / "constraints.txt"


def check_packages(constraints: Path) -> Check:
    """Compare the installed packages with the versions that the tests ran with."""
    here = {name: version for name, version in versions().items() if name in REPORTED_PACKAGES}
    if missing := [name for name in REPORTED_PACKAGES if name not in here]:
        return Check("packages", FAILED, f"not installed: {', '.join(missing)}", "Reinstall: pip install ragcun")
    shown = ", ".join(f"{name} {version}" for name, version in here.items())
    tested = _pins(constraints)
    other = [
        f"{name} {version} (tested: {tested[name]})"
        for name, version in here.items()
        if tested.get(name, version) != version.split("+")[0]
    ]
    if other:
        return Check("packages", REMARK, ", ".join(other), f"In the checkout: pip install -c {constraints} '.[demo]'")
    return Check("packages", OK, f"the tested versions: {shown}")


def _pins(constraints: Path) -> dict[str, str]:
    """Return the versions in the `name==version` lines that apply to this Python."""
    from packaging.requirements import Requirement

    try:
        lines = (line.split("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines())
        wanted = [Requirement(line) for line in lines if line]
    except (ValueError, OSError) as error:  # also InvalidRequirement, and bytes that are not text
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--constraints {constraints}: not a list of versions ({reason})",
            "Each line must be NAME==VERSION, as in ragcun's constraints.txt.",
        ) from None
    holding = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    return {each.name: next(iter(each.specifier)).version for each in holding if each.specifier}
