"""The process that answers for all departments: the only one that loads PyTorch for it.

    python -m cloud_server.departments '{"model": "DIR/model", "batch": 4, ...}'

Lines of JSON on stdin ask, lines on stdout answer; what libraries print goes to stderr.

    {"load": KEY, "folder": PATH}                         {"loaded": KEY} or {"failed": KEY, "message": ...}
    {"drop": KEY}
    {"ask": 7, "adapter": KEY, "ids": [...], "most": 16}  {"ask": 7, "token": 88} .. {"ask": 7, "ends": "stop"}
    {"leave": 7}                                          nobody waits for the answer

The first line tells what was loaded: {"ready": {...}}, or an error. It ends when stdin does.
"""  # noqa: E501

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cloud_server.departments.generation import Ask, Factors, Group, Layers
from cloud_server.departments.job import EngineJob
from fleet_model.bundle import TRAINER, parse_trainer, require_file
from fleet_model.errors import BundleError, FleetError, SettingsError
from fleet_model.memory import available_mb
from fleet_model.torch.model import torch_model
from fleet_model.workload import rebuild
from fleet_model.workloads.causal_lm.memory import cache_mb, memory_mb
from fleet_model.workloads.causal_lm.torch_model import BASE_MODEL


class Answering:
    """A base, the adapters beside it, and the texts that go on."""

    def __init__(self, job: EngineJob, outbound: BinaryIO) -> None:
        """Load the base.

        Raises:
            FleetError: it is damaged, PyTorch is not installed, or there is not the memory.
        """
        self._job, self._outbound = job, outbound
        directory = job.model
        spec = parse_trainer((directory / TRAINER).read_bytes())
        base = (directory / BASE_MODEL).stat().st_size
        cache = cache_mb(directory, job.batch, job.context)
        needed = memory_mb(directory, base) + cache + job.adapters_mb
        if job.device in ("auto", "cpu") and needed > (free := available_mb()):
            raise BundleError(
                f"the model takes about {needed:.0f} MB of memory ({cache:.0f} of them for "
                f"{job.batch} texts of {job.context} tokens), {free:.0f} MB are free; end other "
                "programs, or give a smaller --batch or --context"
            )
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise SettingsError(
                f"answering needs {error.name}: pip install 'fleetlearn[torch-server]' here"
            ) from None
        torch.set_num_threads(job.threads)
        for name in (BASE_MODEL,):
            require_file(directory / name, spec.files[name])
        workload: Any = rebuild(spec.workload, directory)
        definition = torch_model(spec.workload, workload)
        device = job.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._model: Any = definition.build(directory).to(device)
        except RuntimeError as error:
            why = str(error).partition("\n")[0][:200]
            raise SettingsError(f"--device {device}: {why}") from None
        self._layers = Layers(self._model, definition.path)
        self._end, self._padding = workload.end, workload.padding
        self._loaded: dict[str, Factors] = {}
        self._asks: dict[int, Ask] = {}
        self._waiting: list[Ask] = []
        self._groups: list[Group] = []
        self.tell({"ready": {"memory_mb": round(needed), "device": device}})

    def tell(self, line: Mapping[str, Any]) -> None:
        """Write one line."""
        self._outbound.write(json.dumps(line).encode() + b"\n")
        self._outbound.flush()

    def work(self, orders: "queue.SimpleQueue[dict[str, Any]]") -> None:
        """Do what is ordered, and let all texts go on in turn, for ever."""
        while True:
            idle = not (self._groups or self._waiting)
            if idle or not orders.empty():
                self._do(orders.get())
                continue
            room = self._job.batch - sum(len(group.asks) for group in self._groups)
            if self._waiting and room > 0:
                begun, self._waiting = self._waiting[:room], self._waiting[room:]
                self._groups.append(
                    Group(self._model, self._layers, begun, self._end, self._padding)
                )
            for group in self._groups:
                self._step(group)
            self._groups = [group for group in self._groups if group.asks]

    def _do(self, order: Mapping[str, Any]) -> None:
        if "load" in order:
            self._load(order["load"], Path(order["folder"]))
        elif "drop" in order:
            self._loaded.pop(order["drop"], None)
        elif "leave" in order:
            if (ask := self._asks.pop(order["leave"], None)) is not None:
                ask.gone = True
                self._waiting = [one for one in self._waiting if one is not ask]
        else:
            self._ask(order)

    def _load(self, key: str, folder: Path) -> None:
        try:
            factors = self._layers.read(folder)
            trial = Ask(number=-1, ids=[self._end], most=1, factors=factors)
            Group(self._model, self._layers, [trial], self._end, self._padding).step()
        except (FleetError, RuntimeError, MemoryError) as error:
            why = str(error).partition("\n")[0][:300] or type(error).__name__
            self.tell({"failed": key, "message": why})
            return
        self._loaded[key] = factors
        self.tell({"loaded": key})

    def _ask(self, order: Mapping[str, Any]) -> None:
        number, factors = order["ask"], self._loaded.get(order["adapter"])
        if factors is None:
            self.tell({"ask": number, "error": "its adapter is not loaded"})
            return
        given = {name: order[name] for name in ("ids", "most", "temperature", "top_p", "seed")}
        self._asks[number] = Ask(number=number, factors=factors, **given)
        self._waiting.append(self._asks[number])

    def _step(self, group: Group) -> None:
        asked = list(group.asks)
        try:
            steps = group.step()
        except (FleetError, RuntimeError, MemoryError) as error:
            why = str(error).partition("\n")[0][:300] or type(error).__name__
            group.asks.clear()
            for ask in asked:
                if self._asks.pop(ask.number, None) is not None:
                    self.tell({"ask": ask.number, "error": why})
            return
        for step in steps:
            line: dict[str, Any] = {"ask": step.ask.number}
            if step.token is not None:
                line["token"] = step.token
            if step.ends:
                line["ends"] = step.ends
                self._asks.pop(step.ask.number, None)
            if not step.ask.gone:
                self.tell(line)


def main(arguments: Sequence[str]) -> int:
    """Answer until stdin ends; return the exit code."""
    inbound, outbound = _pipes()
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in inbound:
            orders.put(json.loads(line))
        os._exit(0)  # the parent has ended, or wants this to end: also in the middle of a step

    threading.Thread(target=read, name="orders", daemon=True).start()
    try:
        answering = Answering(EngineJob.model_validate_json(arguments[0]), outbound)
    except FleetError as error:
        line = {"error": type(error).__name__, "message": str(error)}
        outbound.write(json.dumps(line).encode() + b"\n")
        outbound.flush()
        return error.exit_code
    answering.work(orders)
    return 0


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout to ourselves: what a library prints goes to stderr instead."""
    inbound, outbound = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(inbound, "rb"), os.fdopen(outbound, "wb")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
