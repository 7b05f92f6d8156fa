"""AWS's own configuration, broken in every way: the reason and the cure, and never a part of a credential."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cli.aws.calls import Aws, open_session
from ragcun_cli.errors import RagcunError
from ragcun_cli.secrets import HIDDEN, redacted
from ragcun_cli.storage.stores import open_store
from tests.conftest import RunCommand

MARKER = "Xq7MARKERz9"
KEYS = f"aws_access_key_id = AKIA{MARKER}\naws_secret_access_key = {MARKER}/secret+{MARKER}\n"

# name -> (config file, credentials file, environment, what is said, what is not)
BROKEN = {
    "an endpoint that is not a valid URL": (
        "", f"[default]\n{KEYS}", {"AWS_ENDPOINT_URL": "not a url"}, "is not a valid URL",
    ),
    "a token with a line break": (
        "", "",
        {"AWS_ACCESS_KEY_ID": f"AKIA{MARKER}", "AWS_SECRET_ACCESS_KEY": f"{MARKER}secret",
         "AWS_SESSION_TOKEN": f"{MARKER}one\n{MARKER}two"},
        "a character that is not allowed",
    ),
    "a process that prints no JSON": (
        f"[default]\ncredential_process = echo {MARKER}\n", "", {}, "does not print JSON",
    ),
    "a process that fails": (
        f"[default]\ncredential_process = false {MARKER}\n", "", {}, "must print JSON to standard output",
    ),
    "a port that is none": (
        "", f"[default]\n{KEYS}", {"AWS_ENDPOINT_URL": f"http://me:{MARKER}@localhost:99999"}, "AWS_ENDPOINT_URL",
    ),
    "a loop of profiles": (
        "[profile a]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = b\n"
        "[profile b]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = a\n",
        "", {"AWS_PROFILE": "a"}, "configuration cannot be used",
    ),
    "a missing sso-session": (
        "[default]\nsso_session = gone\nsso_account_id = 1\nsso_role_name = x\n", "", {}, "gone",
    ),
    "a credentials file that cannot be read": (
        "", f"aws_secret_access_key = {MARKER}\n[default\n", {}, "Unable to parse config file",
    ),
    "a source profile that is not there": (
        "[profile a]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = nobody\n", "", {"AWS_PROFILE": "a"}, "nobody",
    ),
    "an odd credential source": (
        "[profile a]\nrole_arn = arn:aws:iam::1:role/x\ncredential_source = Nowhere\n", "", {"AWS_PROFILE": "a"},
        "Nowhere",
    ),
}  # fmt: skip


@pytest.fixture(params=list(BROKEN), ids=list(BROKEN))
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    config, credentials, environment, said = BROKEN[request.param]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, content in (("config", config), ("credentials", credentials)):
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("HF_TOKEN", f"hf_{MARKER}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return said


def test_every_command_says_what_is_wrong_and_shows_no_credential(
    broken: str, ragcun: RunCommand, small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = (
        ["aws", "status", "run-1"],
        ["aws", "plan", "--instance", "g4dn.xlarge", "--recipe", small_recipe],
        ["aws", "launch", "--instance", "g4dn.xlarge", "--recipe", small_recipe, "--dry-run"],
        ["train", "-r", small_recipe, "--set", "backup=s3://bucket/prefix", "--set", "max_steps=1"],
    )
    for command in commands:
        for more in ([], ["--json"]):
            done = ragcun(*command, *more)
            everything = done.stdout + done.stderr
            assert MARKER not in everything, command
            assert "Traceback" not in everything, (command, everything)
            assert done.exit_code in (2, 4), (command, everything)
            shown = " ".join(everything.replace("│", "").split())
            assert broken in shown, (command, shown)
            assert "Is the network up?" not in shown
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("config", "credentials")]
    assert not any(MARKER.encode() in path.read_bytes() for path in left)


def test_calls_and_places_say_it_too(broken: str) -> None:
    with pytest.raises(RagcunError) as by_call:
        Aws(open_session(None)).account()
    with pytest.raises(RagcunError) as by_place:
        open_store("s3://bucket/prefix", "run").check()
    for caught in (by_call, by_place):
        assert broken in caught.value.message + caught.value.hint
        assert MARKER not in caught.value.message + caught.value.hint


def test_what_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "firsthalf\nsecondhalf\tthird-part")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "c"))
    monkeypatch.setenv("HF_TOKEN", "short")  # no word of every sentence is hidden
    (tmp_path / "c").write_text("[x]\naws_secret_access_key = wJalr/K7+bPx\nregion = eu-central-1\n")
    said = "bad header b'firsthalf\\nsecondhalf' wJalr/K7+bPx in eu-central-1, short"
    assert redacted(said) == f"bad header b'{HIDDEN}\\n{HIDDEN}' {HIDDEN} in eu-central-1, short"
    (tmp_path / "c").write_text("no ini at all: topsecretvalue\n")
    assert redacted("topsecretvalue no ini at all: topsecretvalue") == f"{HIDDEN} {HIDDEN}"
    assert redacted("nothing here") == "nothing here"


def test_a_command_for_credentials_is_no_secret_but_what_was_written_into_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "c"))
    (tmp_path / "c").write_text("[default]\ncredential_process = aws-vault exec x --json --key Zk3Q9v81LmP0\n")
    assert redacted("report table --json by aws-vault, Zk3Q9v81LmP0") == f"report table --json by aws-vault, {HIDDEN}"


def test_the_hubs_token_and_a_login_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("hf_abcdefghijkl\n")
    (tmp_path / "netrc").write_text("machine example.org login someone password p4ssw0rd-of-mine\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert redacted("someone: hf_abcdefghijkl p4ssw0rd-of-mine") == f"someone: {HIDDEN} {HIDDEN}"


def test_a_defects_traceback_shows_none_either(
    ragcun: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{MARKER}secret")
    monkeypatch.setattr("ragcun_cli.report.managing.list_results", lambda _: _raise())
    done = ragcun("results", "list", "--results", tmp_path)
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert "KeyError" in done.stderr
    assert MARKER not in done.stderr


def _raise() -> None:
    raise KeyError(f"{MARKER}secret")
