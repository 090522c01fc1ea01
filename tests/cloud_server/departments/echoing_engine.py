"""Stands in for the process that computes: says what it was asked, loads no framework.

A text that begins with 99 never goes on; one with 98 ends the process.
"""

import json
import os
import sys


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if json.loads(sys.argv[1])["batch"] == 13:
    say(error="BundleError", message="the model takes about 9000 MB of memory, 10 MB are free")
    sys.exit(3)
say(ready={"memory_mb": 1, "device": "cpu"})
for order in map(json.loads, sys.stdin):
    if "load" in order:
        say(loaded=order["load"])
    elif "leave" in order:
        sys.stderr.write(f"left {order['leave']}\n")
    elif "ask" in order and order["ids"][0] == 98:
        os._exit(7)
    elif "ask" in order and order["ids"][0] != 99:
        told = (order["ids"] * order["most"])[: order["most"]]
        for place, token in enumerate(told):
            more = {"ends": "length"} if place == len(told) - 1 else {}
            say(ask=order["ask"], token=token, **more)
