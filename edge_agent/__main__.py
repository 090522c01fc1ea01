"""Where `edge-agent` begins, and `python -m edge_agent`: see fleet_model/program.py."""

from fleet_model.program import begin


def main() -> None:
    """Run the command line."""
    begin()
    from edge_agent.cli import main as run

    run()


if __name__ == "__main__":
    main()
