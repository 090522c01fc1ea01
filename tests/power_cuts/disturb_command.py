"""Disturb a command and all that it starts: python disturb_command.py FOLDER KIND AT COMMAND ...

Prints one line of JSON: the exit code, what stands on stderr, the operation, how many there were.
KIND is one of faults.py; a kill ends the process that is at work on the files alone, so a
command may lose its child or end beside it.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the packages beside these tests

from faults import disturbed
from run_scenarios import NOT_PERMITTED
from tracer import NotPermittedError


def main() -> int:
    folder, kind, at, *command = sys.argv[1:]
    try:
        outcome = disturbed(Path(folder), lambda: os.execv(command[0], command), kind, int(at))
    except NotPermittedError:
        return NOT_PERMITTED
    told = {"code": outcome.code, "said": outcome.said}
    met = {"disturbed": outcome.faults.disturbed, "count": outcome.faults.count}
    print(json.dumps(told | met))
    return 0


if __name__ == "__main__":
    sys.exit(main())
