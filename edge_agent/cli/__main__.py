"""Run the command line with `python -m edge_agent.cli`."""

from edge_agent.cli import main

main()
