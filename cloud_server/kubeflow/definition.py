"""The components and the pipeline. kfp ships each function's source alone, so they import inside.

What a cluster caches by are the parameters and inputs of a component: `key` is a digest of data,
base and code, which `prepare` makes anew in every run. So nothing that is cached is stale.
"""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

NAME = "fleetlearn-departments"
SMALL, LARGE = ("1", "2Gi"), ("4", "8Gi")  # CPUs and memory
RESOURCES = {
    "prepare": SMALL, "clients": SMALL, "rounds": LARGE, "profiles": LARGE, "publish": LARGE,
}  # fmt: skip
LEARNING = ("rounds", "profiles")  # those that a GPU helps


def prepare(
    data: str, model: str, options: str, prepared: Output[Dataset], metrics: Output[Metrics]
) -> str:
    """Copy tables and base; return what names all that follows."""
    from cloud_server.kubeflow.component import do

    return do("prepare", options, prepared.path, metrics, {}, data=data, model=model)


def clients(
    key: str,
    options: str,
    prepared: Input[Dataset],
    clients: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Say who takes part."""
    from cloud_server.kubeflow.component import do

    do("clients", options, clients.path, metrics, {"prepare": prepared.path})


def rounds(
    key: str,
    options: str,
    prepared: Input[Dataset],
    clients: Input[Artifact],
    fleet: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Close rounds with real training."""
    from cloud_server.kubeflow.component import do

    given = {"prepare": prepared.path, "clients": clients.path}
    do("rounds", options, fleet.path, metrics, given)


def profiles(
    key: str,
    options: str,
    prepared: Input[Dataset],
    fleet: Input[Model],
    profiles: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Ask clients for profiles."""
    from cloud_server.kubeflow.component import do

    given = {"prepare": prepared.path, "rounds": fleet.path}
    do("profiles", options, profiles.path, metrics, given)


def publish(
    key: str,
    options: str,
    fleet: Input[Model],
    profiles: Input[Artifact],
    published: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Export, check, sign and offer."""
    from cloud_server.kubeflow.component import do

    given = {"rounds": fleet.path, "profiles": profiles.path}
    do("publish", options, published.path, metrics, given)


FUNCTIONS = (prepare, clients, rounds, profiles, publish)


def pipeline_of(image: str, gpus: int) -> Any:
    """Return the pipeline.

    Args:
        image: of all components; it has this project and kfp installed.
        gpus: of those that train.
    """
    made = {
        one.__name__: dsl.component(
            one, base_image=image, packages_to_install=[], install_kfp_package=False
        )
        for one in FUNCTIONS
    }

    def task(name: str, **given: Any) -> Any:
        one = made[name](**given)
        cpu, memory = RESOURCES[name]
        one.set_cpu_request(cpu).set_cpu_limit(cpu)
        one.set_memory_request(memory).set_memory_limit(memory)
        if gpus and name in LEARNING:
            one.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
        return one

    @dsl.pipeline(name=NAME, description="rounds of departments, their profiles, a signed model")
    def departments(data: str, model: str, options: str) -> None:
        first = task("prepare", data=data, model=model, options=options)
        first.set_caching_options(False)  # it finds out whether data or code are others
        prepared = first.outputs["prepared"]
        common = {"key": first.outputs["Output"], "options": options}
        who = task("clients", **common, prepared=prepared).outputs["clients"]
        fleet = task("rounds", **common, prepared=prepared, clients=who).outputs["fleet"]
        told = task("profiles", **common, prepared=prepared, fleet=fleet).outputs["profiles"]
        task("publish", **common, fleet=fleet, profiles=told)

    return departments
