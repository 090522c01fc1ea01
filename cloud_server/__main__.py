"""Where `cloud-server` and `python -m cloud_server` begin: see command_line/program.py."""

from fleet_model.command_line.program import begin


def main() -> None:
    """Run the command line."""
    begin()
    from cloud_server.cli import main as run

    run()


if __name__ == "__main__":
    main()
