"""The number of the protocol between robots and server.

It rises when a message or a published file changes such that an older side would misread it. A
field that an older side may ignore does not raise it. docs/decisions/0010-protocol-versions.md
has the rules and the order of upgrades.
"""

from fleet_model import __version__

PROTOCOL = 2  # what this version of fleetlearn speaks
FIRST_PROTOCOL = 1  # of everything without a number: fleetlearn up to commit 87262d4
PROTOCOL_PARAMETER = "protocol"  # of the query: a robot announces its number with every look
MAX_PROTOCOL = 10**6  # a number beyond it is none


def too_new(what: str, number: object) -> str:
    """Return why a message or file of a higher number is refused."""
    return (
        f"{what} is of protocol {str(number)[:20]}, fleetlearn {__version__} knows protocols up to "
        f"{PROTOCOL}: update the agent"
    )
