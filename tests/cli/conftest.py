"""Running the command line in tests."""

import sys

import pytest
from rich.console import Console

from m3tune import cli


@pytest.fixture
def m3tune(monkeypatch, capsys):
    """Runs the command in this process, as its entry point does; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(cli, "err", Console(stderr=True, width=1000))
    monkeypatch.setattr(cli, "out", Console(width=1000))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["m3tune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run
