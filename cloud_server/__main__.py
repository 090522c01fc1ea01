"""Where `cloud-server` begins, and `python -m cloud_server`: see fleet_model/program.py."""

from fleet_model.program import begin


def main() -> None:
    """Run the command line."""
    begin()
    from cloud_server.cli import main as run

    run()


if __name__ == "__main__":
    main()
