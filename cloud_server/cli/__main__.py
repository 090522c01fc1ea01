"""Run the command line with `python -m cloud_server.cli`."""

from cloud_server.cli import main

main()
