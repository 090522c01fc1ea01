"""Write down when each optimizer step of our training process ends; Python imports this at start.

With this folder on PYTHONPATH and STEP_STAMPS set, `fleet_model.optimizer.step` appends a line

    PID START END

to that file at every return: when the process started and now, in seconds since boot. The trainers
themselves are the installed ones, untouched. camera_app writes such lines from a Keras callback.
"""

import importlib.abc
import importlib.util
import os
import sys
import time

TARGET = "fleet_model.optimizer"


class _Stamping(importlib.abc.MetaPathFinder):
    """Finds one module, once, and wraps a function of it."""

    def find_spec(self, name, path=None, target=None):  # noqa: ANN001, ANN202
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):  # noqa: ANN001, ANN202
            execute(module)
            module.step = _stamped(module.step)

        spec.loader.exec_module = exec_module
        return spec


def _stamped(step):  # noqa: ANN001, ANN202
    file = os.open(os.environ["STEP_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    who = f"{os.getpid()} {_process_start_s():.3f}"

    def stamped(*arguments):  # noqa: ANN002, ANN202
        result = step(*arguments)
        os.write(file, f"{who} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n".encode())
        return result

    return stamped


def _process_start_s():  # noqa: ANN202
    with open("/proc/self/stat") as stream:  # noqa: PTH123
        ticks = int(stream.read().rpartition(")")[2].split()[19])  # field 22 of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


if "STEP_STAMPS" in os.environ:
    sys.meta_path.insert(0, _Stamping())
