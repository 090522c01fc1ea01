"""timed_robots.py and scripted_nodes.py are imported by name by several test files."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
