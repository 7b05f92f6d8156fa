"""Pack the code that a machine runs: the checkout's files as one archive, the same bytes for the same files."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from ragcun_cli.aws.launch_record import CodeIdentity
from ragcun_cli.errors import EnvironmentUnfit, UsageError
from ragcun_cli.safe_paths import UnsafeName, safe_join

NEEDED = ("pyproject.toml", "constraints.txt", "ragcun_cli/main.py", "README.md", "LICENSE")
RUN_FOLDERS = ("ragcun_cli", "recipes")  # a new file elsewhere does not affect a run
LARGEST_ARCHIVE = 100 << 20  # bytes; anything larger includes data by mistake
SHOWN_FILES = 8


@dataclass(frozen=True)
class CodeArchive:
    """The packed code. content: a .tar.gz; commit: the checkout's; changed: files in it that differ from the commit."""

    content: bytes
    sha256: str
    commit: str
    changed: tuple[str, ...]

    def identity(self) -> CodeIdentity:
        """Return what launch.json records of it."""
        return CodeIdentity(self.sha256, self.commit, self.changed)

    @property
    def key(self) -> str:
        """The archive's key below the run's prefix."""
        return f"code/{self.sha256}.tar.gz"


def default_checkout() -> Path:
    """Return the folder of the running ragcun's own code."""
    return Path(__file__).resolve().parent.parent.parent


def archive_checkout(folder: Path, allow_changes: bool) -> CodeArchive:
    """Pack the files tracked by git and new ones among code and recipes; anything else, such as a .env, stays here.

    Raises:
        EnvironmentUnfit: if there is no checkout, or no git.
        UsageError: if files differ from the commit and this is not allowed, or the archive is too large.
    """
    _require_checkout(folder)
    commit = _git(folder, "rev-parse", "HEAD").strip()
    tracked = _git(folder, "status", "--porcelain", "-z", "--untracked-files=no")
    new = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", *RUN_FOLDERS).split("\0")
    changed = (*(line[3:] for line in tracked.split("\0") if line), *(name for name in new if name))
    if changed and not allow_changes:
        listed = "\n".join(f"  {name}" for name in changed[:SHOWN_FILES])
        more = f"\n  and {len(changed) - SHOWN_FILES} more" if len(changed) > SHOWN_FILES else ""
        raise UsageError(
            f"{folder}: these files differ from the commit:\n{listed}{more}",
            "Commit them, so that the results name the exact code; or include them as they are: --allow-changes.",
        )
    listed_files = [*_git(folder, "ls-files", "-z", "--cached").split("\0"), *new]
    names = sorted({name for name in listed_files if name and (folder / name).is_file()})
    for name in names:
        _require_inside(folder, name)
    content = _packed(folder, names)
    if len(content) > LARGEST_ARCHIVE:
        raise UsageError(
            f"{folder}: its files make an archive of {len(content) >> 20} MiB",
            "Should git ignore some of them? Data and models are uploaded separately.",
        )
    return CodeArchive(content, hashlib.sha256(content).hexdigest(), commit, changed)


def _require_checkout(folder: Path) -> None:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise EnvironmentUnfit(
            f"{folder}: not a checkout of ragcun: it has no {missing[0]}",
            "A machine runs a checkout's code: clone ragcun with git, and name the folder with --code FOLDER.",
        )
    if not _is_git(folder):
        raise EnvironmentUnfit(
            f"{folder}: not a git repository, so no commit identifies the code",
            "Name a git clone of ragcun with --code FOLDER.",
        )


def _is_git(folder: Path) -> bool:
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel").strip()).resolve() == folder.resolve()
    except UsageError:
        return False


def _git(folder: Path, *arguments: str) -> str:
    try:
        # A checkout's own configuration could name a program to run.
        command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        raise EnvironmentUnfit("git is not installed", "Install git: it lists the files to send.") from None
    if done.returncode:
        raise UsageError(f"{folder}: git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape")


def _require_inside(folder: Path, name: str) -> None:
    """Refuse a link that leads out of the checkout: it would send what it points to, such as a key."""
    try:
        safe_join(folder, name)
    except UnsafeName as error:
        raise UsageError(f"{folder}: {error}", "Remove the link, or replace it by the file.") from None


def _packed(folder: Path, names: list[str]) -> bytes:
    """Pack files without times, owners and the like, so that the digest depends on their content only."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name in names:
            path = folder / name
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as stream:
                archive.addfile(entry, stream)
    return buffer.getvalue()
