import sys

import pytest

from cloud_server import cli


@pytest.fixture
def cloud_server(capsys, monkeypatch):
    """Return a caller of the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cloud-server", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        return code, output.out, " ".join(output.err.split())

    return call
