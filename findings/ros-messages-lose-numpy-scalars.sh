#!/usr/bin/env bash
# A ROS 2 Kilted message takes a NumPy number, shows it, and sends another one.
#
# Versions: ros-kilted-rclpy 9.1.2, ros-kilted-std-msgs 5.5.1, numpy 2.4.6, Python 3.11, Linux.
# Expected: a field of type float32 that is given np.float32(0.9), the element type of the messages'
#   own float32 arrays, travels as 0.9, or is refused where it is set.
# Seen: the generated setters check nothing unless ROS_PYTHON_CHECK_FIELDS=1 is set, so the message
#   shows 0.9, and 0.0 is serialized; np.True_ travels as False. np.float64 survives, because it is a
#   subclass of Python's float. With the checks on, the two raise AssertionError.
# Exits 1 if that is no longer so.
#
# Output on 2026-12-03:
#   std_msgs 5.5.1, checks off (default): Float32(data=np.float32(0.9)) arrives as 0.0
#   std_msgs 5.5.1, checks off (default): Bool(data=np.True_) arrives as False
#   std_msgs 5.5.1, checks off (default): Float64(data=np.float64(0.9)) arrives as 0.9
#   std_msgs 5.5.1, checks on: Float32(data=np.float32(0.9)) arrives as AssertionError
#   std_msgs 5.5.1, checks on: Bool(data=np.True_) arrives as AssertionError
#   std_msgs 5.5.1, checks on: Float64(data=np.float64(0.9)) arrives as 0.9
#   as described: NumPy scalars are lost unless the checks are on
set -eu
unset PYTHONPATH ROS_PYTHON_CHECK_FIELDS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq ros-kilted-rclpy==9.1.2 ros-kilted-std-msgs==5.5.1 \
    ros-kilted-rmw-fastrtps-cpp==9.3.3 numpy==2.4.6
cat > "$work/scalars.py" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Bool, Float32, Float64

checks = "on" if os.environ.get("ROS_PYTHON_CHECK_FIELDS") == "1" else "off (default)"
arrived = {}
for kind, value in ((Float32, np.float32(0.9)), (Bool, np.True_), (Float64, np.float64(0.9))):
    try:
        message = kind(data=value)
        found = deserialize_message(serialize_message(message), kind).data
    except AssertionError:
        found = "AssertionError"
    arrived[kind] = found
    print(f"std_msgs {version('ros-kilted-std-msgs')}, checks {checks}: "
          f"{kind.__name__}(data={value!r}) arrives as {found}")
if checks == "on":
    sys.exit(not arrived[Float32] == arrived[Bool] == "AssertionError")
lost = arrived[Float32] != "AssertionError" and abs(arrived[Float32] - 0.9) > 0.1
sys.exit(not (lost and arrived[Bool] is False and arrived[Float64] == 0.9))
PYTHON
for checks in 0 1; do
    ROS_PYTHON_CHECK_FIELDS=$checks "$work/venv/bin/python" "$work/scalars.py" ||
        { echo "changed: no longer as described above"; exit 1; }
done
echo "as described: NumPy scalars are lost unless the checks are on"
