"""Where `site-relay` and `python -m site_relay` begin: see command_line/program.py."""

from fleet_model.command_line.program import begin


def main() -> None:
    """Run the command line."""
    begin()
    from site_relay.cli import main as run

    run()


if __name__ == "__main__":
    main()
