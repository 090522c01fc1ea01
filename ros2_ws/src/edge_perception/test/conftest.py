"""No test of this package sends anything off this machine, and each run has its own ROS domain."""

import os

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100))
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
