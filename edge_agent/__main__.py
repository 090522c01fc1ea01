"""Where `edge-agent` and `python -m edge_agent` begin: see command_line/program.py."""

from fleet_model.command_line.program import begin


def main() -> None:
    """Run the command line."""
    begin()
    from edge_agent.cli import main as run

    run()


if __name__ == "__main__":
    main()
