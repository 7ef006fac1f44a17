"""Settings from a file, the environment and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstream.errors import InvalidInput
from agentstream.web import Settings, load_settings
from agentstream.web.settings import is_loopback


def write(folder: Path, text: str) -> Path:
    """A settings file."""
    path = folder / "agentstream.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_set(tmp_path: Path) -> None:
    """Without any of the three there are the defaults: local, and gone with the process."""
    settings = load_settings(environ={}, folder=tmp_path)
    assert settings == Settings()
    assert (settings.host, settings.port, settings.store, settings.cors) == ("127.0.0.1", 8000, "memory:", ())


def test_who_goes_before_whom(tmp_path: Path) -> None:
    """The command line before the environment before the file, each value by itself, also inside `limits`."""
    write(tmp_path, 'port = 1\nstore = "sqlite:a"\nheartbeat = 3\n[limits]\nmax_runs = 1\nmax_waiting = 1\n')
    environ = {
        "AGENTSTREAM_PORT": "2",
        "AGENTSTREAM_STORE": "sqlite:b",
        "AGENTSTREAM_LIMITS_MAX_RUNS": "2",
        "AGENTSTREAM_PAGE": "0",
        "AGENTSTREAM_DRAIN": " ",
        "AGENTSTREAM_CORS": "https://a.example, https://b.example,",
        "AGENTSTREAM_MODEL": "somebody else's",
    }
    settings = load_settings(given={"port": 3}, environ=environ, folder=tmp_path)
    assert (settings.port, settings.store, settings.heartbeat) == (3, "sqlite:b", 3.0)
    assert (settings.limits.max_runs, settings.limits.max_waiting) == (2, 1)
    assert (settings.page, settings.drain) == (False, 10.0)
    assert settings.cors == settings.web().cors == ("https://a.example", "https://b.example")
    assert settings.answers().heartbeat == 3.0


def test_the_file_is_looked_for_upward(tmp_path: Path) -> None:
    """From a folder inside a project the project's file is found; its paths are meant from where it lies."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "agents").mkdir()
    (tmp_path / "bot.py").touch()
    write(tmp_path, 'teams = ["agents", "bot.py:team", "shop.teams:support", "installed"]')
    settings = load_settings(environ={}, folder=inner)
    expected = (str(tmp_path / "agents"), str(tmp_path / "bot.py:team"), "shop.teams:support", "installed")
    assert settings.teams == expected


@pytest.mark.parametrize(
    ("text", "environ", "says"),
    [
        ("port = ", {}, ["agentstream.toml is not TOML", "end of document"]),
        ("page = true\nport = 70000", {}, ["agentstream.toml, line 2", "`port`", "65535"]),
        ("prot = 1", {}, ["line 1", "`prot`", "no such setting", "port"]),
        ("page = true\n[limits]\nmax_runs = 0", {}, ["line 3", "`limits.max_runs`"]),
        ("[limits]\nspeed = 1", {}, ["line 2", "no such setting", "max_runs"]),
        ("limits = 3", {}, ["line 1", "`limits`"]),
        ("cors = ['app.example']", {}, ["line 1", "`cors`", "https://app.example.com"]),
        ("teams = 'a'", {}, ["`teams`"]),
        ("", {"AGENTSTREAM_PORT": "many"}, ["AGENTSTREAM_PORT", "integer"]),
        ("", {"AGENTSTREAM_LIMITS_LEASE": "-1"}, ["AGENTSTREAM_LIMITS_LEASE"]),
        ("", {"AGENTSTREAM_LIMITS_EMIT_TIMEOUT": "60"}, ["emit_timeout"]),
        ("", {"AGENTSTREAM_LOG_LEVEL": "loud"}, ["AGENTSTREAM_LOG_LEVEL", "debug"]),
    ],
)
def test_what_does_not_fit(text: str, environ: dict[str, str], says: list[str], tmp_path: Path) -> None:
    """The error names the file and line, or the variable, and what is asked for."""
    write(tmp_path, text)
    with pytest.raises(InvalidInput) as caught:
        load_settings(environ=environ, folder=tmp_path)
    for words in says:
        assert words in str(caught.value)


def test_the_command_line_is_named(tmp_path: Path) -> None:
    """So is an option."""
    with pytest.raises(InvalidInput, match="--log-level"):
        load_settings(given={"log_level": "loud"}, environ={}, folder=tmp_path)


def test_a_file_that_was_named(tmp_path: Path) -> None:
    """A file that was named must be there."""
    assert load_settings(write(tmp_path, "port = 5"), environ={}).port == 5
    with pytest.raises(InvalidInput, match=r"other\.toml cannot be read"):
        load_settings(tmp_path / "other.toml", environ={})


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("Localhost.", True),
        ("a.localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_this_machine(host: str, local: bool) -> None:
    """Names that only this machine answers to; a public one must be asked for."""
    assert is_loopback(host) == local
    if host:
        settings = Settings(host=host)
        if local:
            settings.check_bind()
        else:
            with pytest.raises(InvalidInput, match="--host"):
                settings.check_bind()
            settings.model_copy(update={"public": True}).check_bind()
