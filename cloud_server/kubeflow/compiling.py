"""YAML for a cluster, held against the schema of Kubeflow and against what is meant."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from cloud_server.kubeflow.definition import LEARNING, RESOURCES, pipeline_of
from cloud_server.kubeflow.options import FleetJob
from fleet_model.durable import telling_of_the_disk, write_durably
from fleet_model.errors import ExportError

_EXECUTOR = "kfp.dsl.executor_main"
_UNITS = {"Gi": 1.073741824, "G": 1.0}


def compile_pipeline(job: FleetJob) -> dict[str, Any]:
    """Write the pipeline as YAML; what was given is the default of its parameters.

    Raises:
        ExportError: kfp has compiled something else than what is meant.
        StorageError: the file cannot be written.
    """
    given = {"data": job.data, "model": job.model, "options": job.options.model_dump_json()}
    parameters = {name: value for name, value in given.items() if value}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pipeline.yaml"
        pipeline = pipeline_of(job.image, job.gpus)
        compiler.Compiler().compile(pipeline, str(file), pipeline_parameters=parameters)
        text = file.read_text("utf-8")
    require_as_meant(text, job.image, job.gpus)
    with telling_of_the_disk(job.out.name, "choose another file"):
        write_durably(job.out, text)
    return {"file": str(job.out), "components": list(RESOURCES), "image": job.image}


def require_as_meant(text: str, image: str, gpus: int) -> None:
    """Raise ExportError unless YAML is a PipelineSpec whose executors are as they are meant.

    Args:
        text: all of it.
        image: that each executor should have.
        gpus: of those that learn.
    """
    try:
        document = yaml.safe_load(text)
        spec = json_format.ParseDict(document, PipelineSpec(), ignore_unknown_fields=False)
        executors = json_format.MessageToDict(spec)["deploymentSpec"]["executors"]
    except (yaml.YAMLError, json_format.ParseError, KeyError, AttributeError) as error:
        words = " ".join(str(error).split())[:300]
        raise ExportError(f"the pipeline does not fit Kubeflow's schema: {words}") from None
    found = {name.removeprefix("exec-") for name in executors}
    if found != set(RESOURCES):
        raise ExportError(f"the pipeline has components {sorted(found)}, not {list(RESOURCES)}")
    for name in RESOURCES:
        if wrong := _wrong(name, executors[f"exec-{name}"]["container"], image, gpus):
            raise ExportError(f"component {name}: {wrong}")


def _wrong(name: str, container: Mapping[str, Any], image: str, gpus: int) -> str:
    """Return what of a container is not as it is meant; "": nothing."""
    if container["image"] != image:
        return f"its image is {container['image']!r}, expected {image!r}"
    words = " ".join([*container["command"], *container["args"]])
    if _EXECUTOR not in words or f"--function_to_execute {name}" not in words:
        return f"its command does not run {name} by {_EXECUTOR}"
    if "pip install" in words:
        return "its command installs packages, which a pod without network cannot"
    cpu, memory = RESOURCES[name]
    meant = (float(cpu), float(memory.removesuffix("Gi")) * _UNITS["Gi"])
    told = container.get("resources", {})
    for kind in ("Request", "Limit"):
        has = _number(told, f"cpu{kind}"), _number(told, f"memory{kind}")
        if has != meant:
            return f"its {kind.lower()}s are {has} CPUs and GB, expected {meant}"
    many = int(told.get("accelerator", {}).get("count", 0))
    if many != (gpus if name in LEARNING else 0):
        return f"it asks for {many} GPUs"
    return ""


def _number(told: Mapping[str, Any], name: str) -> float:
    """Return a resource as a number, which kfp writes in one of two fields."""
    resource = told.get(f"resource{name[0].upper()}{name[1:]}")
    if isinstance(resource, str):
        for unit, factor in _UNITS.items():
            if resource.endswith(unit):
                return float(resource.removesuffix(unit)) * factor
        return float(resource)
    return float(told.get(name, 0))
