"""Any disk, user, home and locale: an error of the system is exit code 4 with its path, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ragcun_cli import files
from ragcun_cli.errors import EnvironmentUnfit, ExitCode, UsageError, as_ragcun_error
from ragcun_cli.files import expanded
from tests.conftest import REPOSITORY, RunCommand
from tests.faults.test_disk import mounted_disk
from tests.tiny_models import WORDS, write_collection

# No entry for this user's number, and no HOME.
NAMELESS = """
import pwd, sys

def nobody(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = nobody
from ragcun_cli.main import main
main()
"""


def run(
    *arguments: str | Path,
    cwd: Path,
    before: Callable[[], None] | None = None,
    program: Sequence[str] = ("-m", "ragcun_cli"),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """A process that inherits no environment but what it needs."""
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, errors="backslashreplace", check=False, timeout=300, preexec_fn=before,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "OMP_NUM_THREADS": "1",
             **environment},
    )  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk") as place:
        yield place


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{' '.join(WORDS[n % 250 : n % 250 + 6])}\n" for n in range(400)))
    return path


@pytest.mark.parametrize("ending", ["npy", "parquet"])
def test_encoding_onto_a_disk_without_room_is_refused_before_the_first_text(
    ragcun: RunCommand,
    tiny_bert: Path,
    texts: Path,
    small_disk: Path,
    ending: str,
) -> None:
    (small_disk / "others.bin").write_bytes(bytes(24 * 2**20 - 40_000))
    done = ragcun("encode", texts, "-m", tiny_bert, "-o", small_disk / f"x.{ending}")
    assert done.exit_code == 4
    assert f"not enough disk space: {small_disk}" in " ".join(done.stderr.replace("│", "").split())
    assert names(small_disk) == ["others.bin"]


def test_an_export_onto_a_disk_without_room_leaves_nothing(
    ragcun: RunCommand,
    trained_run: Path,
    small_disk: Path,
) -> None:
    (small_disk / "others.bin").write_bytes(bytes(24 * 2**20 - 60_000))
    done = ragcun("export", trained_run, small_disk / "model", "--results", trained_run / "none")
    assert done.exit_code == 4
    assert "the disk is full" in done.stderr
    assert names(small_disk) == ["others.bin"]


@pytest.fixture
def trained_run(small_recipe: Path, tmp_path: Path) -> Path:
    from ragcun_cli.train.arm import train_arm
    from tests.training_runs import load

    train_arm(load(small_recipe, "max_steps=2", f"output_dir='{tmp_path / 'trained'}'"))
    return tmp_path / "trained"


def test_a_limit_of_the_files_size_is_named(tiny_bert: Path, texts: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    filled = run("encode", texts, "-m", tiny_bert, "-o", tmp_path / "first.npy", cwd=tmp_path, RAGCUN_CACHE=str(cache))
    assert filled.returncode == 0, filled.stderr

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    out = tmp_path / "out" / "x.npy"
    done = run("encode", texts, "-m", tiny_bert, "-o", out, cwd=tmp_path, before=limited, RAGCUN_CACHE=str(cache))
    assert done.returncode == 4, done.stderr
    assert f"{out}: the file would exceed this process's file-size limit" in " ".join(
        done.stderr.replace("│", "").split()
    )
    assert not out.parent.exists()


@pytest.mark.parametrize("name", ["x" * 300 + ".npy", "loop/x.npy", "loop", "texts.txt/x.npy", "folder"])
def test_places_that_cannot_be_written_are_refused_before_a_model_is_loaded(
    texts: Path, tmp_path: Path, name: str, ragcun: RunCommand
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    out = tmp_path / name
    commands = [["data", "mine", "none", "-m", "no/model", "-o", out.with_suffix(".jsonl")],
                ["export", "no/model", out], ["report", "page", "-o", out]]  # fmt: skip
    if name.endswith(".npy"):
        commands.append(["encode", texts, "-m", "no/model", "-o", out])
    before = names(tmp_path)
    for command in commands:
        done = ragcun(*command)
        assert done.exit_code in (2, 4), command
        assert "Traceback" not in done.stderr
        if name != "folder" and not (command[0] == "data" and name in ("loop",)):
            assert done.exit_code == 4, (command, done.stderr)
            assert "no/model" not in done.stderr
    assert names(tmp_path) == before


def test_every_error_of_the_system_has_code_4_and_its_path() -> None:
    for number in (errno.ENOSPC, errno.EFBIG, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS, errno.EIO, errno.EMFILE):
        error = as_ragcun_error(OSError(number, os.strerror(number), "/there/x"))
        assert error is not None
        assert error.exit_code == ExitCode.ENVIRONMENT
        assert "/there/x" in error.message
    assert as_ragcun_error(OSError("a library's own")) is None


def test_links_are_written_through_and_the_umask_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "disk" / "real.json")  # which is not there yet
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "model")
    for mask, file, folder in ((0o077, 0o600, 0o700), (0o002, 0o664, 0o775), (0o022, 0o644, 0o755)):
        before = os.umask(mask)
        try:
            files.write_json(tmp_path / "link.json", {"mask": mask})
            with files.new_folder(tmp_path / "model") as temporary:
                (temporary / "x").write_text(str(mask))
        finally:
            os.umask(before)
        assert (tmp_path / "disk" / "real.json").stat().st_mode & 0o777 == file
        assert (tmp_path / "disk" / "model").stat().st_mode & 0o777 == folder
        assert (tmp_path / "disk" / "model" / "x").read_text() == str(mask)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "model").is_symlink()
    assert names(tmp_path / "disk") == ["model", "real.json"]
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"[Ss]ymbolic links"):
        files.write_json(tmp_path / "a", {})
    with pytest.raises(IsADirectoryError):
        files.write_json(tmp_path / "disk", {})


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path: Path) -> None:
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    files.require_writable(tmp_path / ("n" * longest))
    files.write_text(tmp_path / ("n" * longest), "x")
    with files.new_folder(tmp_path / ("m" * longest)) as folder:
        (folder / "x").write_text("x")
    assert (tmp_path / ("m" * longest) / "x").exists()
    with pytest.raises(OSError, match="name too long") as caught:
        files.require_writable(tmp_path / "below" / ("n" * (longest + 1)))
    assert caught.value.filename == str(tmp_path / "below" / ("n" * (longest + 1)))
    assert not (tmp_path / "below").exists()


def test_a_user_without_a_name_or_a_home_can_do_everything(
    tiny_bert: Path, triples_file: Path, dev_folder: Path, tmp_path: Path, texts: Path
) -> None:
    """As in a container that runs as a number that nobody has named."""
    work = tmp_path / "work"
    work.mkdir()

    def as_nobody(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, cwd=work, program=["-c", NAMELESS], **environment)

    cache = {"RAGCUN_CACHE": str(work / "cache")}
    settings = {"base_model": tiny_bert, "data.train": triples_file, "data.dev": dev_folder, "max_steps": 1,
                "output_dim": 8, "max_length": 32, "output_dir": "run"}  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    for command in (
        ["recipe", "list"],
        ["train", "-r", "isotropy", *sets],
        ["eval", "beir", "-m", "run", "-d", dev_folder, "--split", "dev"],
        ["report", "table"],
        ["encode", texts, "-m", "run"],
        [],
    ):
        done = as_nobody(*command, **cache)
        assert done.returncode == 0, (command, done.stderr)
    assert not (work / "~").exists()
    done = as_nobody("encode", texts, "-m", "run", "-o", "other.npy")
    assert done.returncode == 4
    assert "cannot find a home folder for the cache" in done.stderr
    for option in ("--out=~/x.npy", "--out=~nobody-of-this-name/x.npy"):
        done = as_nobody("encode", texts, "-m", "run", option, **cache)
        assert done.returncode == 2, done.stderr
        assert "cannot find the home folder" in done.stderr


def test_every_path_on_the_command_line_knows_home(
    tmp_path: Path, ragcun: RunCommand, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    write_collection(home / "data" / "own", 5)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert ragcun("eval", "beir", "-m", tiny_bert, "-d", "own", "--data-dir=~/data", "--results=~/r").exit_code == 0
    assert (home / "r" / "tiny-bert" / "own.json").is_file()
    assert ragcun("report", "table", "--results=~/r").exit_code == 0
    assert ragcun("encode", "~/data/own/corpus.jsonl", "-m", tiny_bert, "--out=~/x.npy").exit_code == 0
    assert np.load(home / "x.npy").shape == (5, 32)
    assert names(tmp_path) == ["home"]
    for arguments in (["report", "table", "--results=~nobody9/r"], ["encode", "~nobody9/x.txt", "-m", tiny_bert]):
        done = ragcun(*arguments)
        assert (done.exit_code, "cannot find the home folder" in done.stderr) == (2, True)


def test_names_that_are_not_utf8_are_refused_at_once(tmp_path: Path, texts: Path, tiny_bert: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match="is not UTF-8") as caught:
        expanded(os.fsdecode(b"caf\xe9.npy"))
    assert caught.value.hint == "Rename it."
    with pytest.raises(UsageError, match="cannot find the home folder"):
        expanded("~nobody-of-this-name/x")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "RAGCUN_CACHE": str(tmp_path / "c")}
    done = run("encode", texts, "-m", tiny_bert, "-o", tmp_path / "café.npy", cwd=tmp_path, **ascii_only)
    if done.returncode == 0:  # a system whose C locale is UTF-8
        return
    assert done.returncode == 4, done.stderr
    assert "set LC_ALL=C.UTF-8" in done.stderr
