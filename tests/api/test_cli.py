from importlib.metadata import EntryPoint, EntryPoints

import pytest
from click.testing import CliRunner

from tempo_api import cli


@pytest.fixture
def tempo(monkeypatch):
    """Runs `tempo` with these entry points: one that loads, one whose dependency is missing."""
    entries = EntryPoints(
        [
            EntryPoint("good", "tempo_sidecar.cli:sidecar", cli.GROUP),
            EntryPoint("bench", "no_such_module.cli:bench", cli.GROUP),
        ]
    )
    monkeypatch.setattr(cli, "entry_points", entries.select)
    return lambda *args: CliRunner().invoke(cli.main, args)


def test_help_lists_the_commands_in_a_line_each_even_if_one_can_not_be_loaded(tempo):
    result = tempo("--help")
    assert result.exit_code == 0
    assert "good" in result.output
    assert "Proxy in front of one engine" in result.output
    assert "bench" in result.output


def test_a_command_whose_dependencies_are_missing_says_what_to_install(tempo):
    result = tempo("bench", "--rate", "3")
    assert result.exit_code == 1
    assert "no_such_module" in result.output
    assert "pip install 'tempo-serving[bench]'" in result.output
    assert "Traceback" not in result.output


def test_an_unknown_command_is_one_line(tempo):
    result = tempo("nope")
    assert result.exit_code == 2
    assert "No such command 'nope'" in result.output


def test_the_version_is_the_distributions(tempo):
    assert tempo("--version").output.startswith("tempo, version ")


def test_only_the_command_that_runs_is_loaded(tempo):
    result = tempo("good", "--help")
    assert result.exit_code == 0
    assert "--engine-url" in result.output
