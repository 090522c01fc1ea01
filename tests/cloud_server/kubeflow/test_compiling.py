"""The YAML for a cluster, by Kubeflow's own schema."""

import pytest
import yaml

from fleet_model.errors import ExportError

pytestmark = pytest.mark.pipelines
IMAGE = "registry.example/fleet:7"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    from cloud_server.kubeflow.compiling import compile_pipeline
    from cloud_server.kubeflow.options import FleetJob

    out = tmp_path_factory.mktemp("compiled") / "fleet.yaml"
    compile_pipeline(FleetJob(out=out, compiled=True, data="s3://a/b", image=IMAGE, gpus=1))
    return out.read_text()


def test_prepare_is_never_cached_and_the_others_go_by_its_key(text):
    told = yaml.safe_load(text)
    tasks = told["root"]["dag"]["tasks"]
    assert list(tasks) == ["clients", "prepare", "profiles", "publish", "rounds"]
    assert "enableCache" not in tasks["prepare"]["cachingOptions"]
    for name in tasks.keys() - {"prepare"}:
        assert tasks[name]["cachingOptions"] == {"enableCache": True}
        key = tasks[name]["inputs"]["parameters"]["key"]["taskOutputParameter"]
        assert key == {"outputParameterKey": "Output", "producerTask": "prepare"}
    given = told["root"]["inputDefinitions"]["parameters"]
    assert given["data"]["defaultValue"] == "s3://a/b"
    assert "defaultValue" not in given["model"]


def test_the_shipped_source_imports_nothing_but_kfp_and_this_project(text):
    for executor in yaml.safe_load(text)["deploymentSpec"]["executors"].values():
        source = executor["container"]["command"][-1]
        found = {
            line.split()[1].partition(".")[0] for line in source.splitlines() if "import " in line
        }
        assert found == {"kfp", "typing", "cloud_server"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.update(surprise=1), "does not fit Kubeflow's schema"),
        (lambda told: told["root"]["dag"]["tasks"].update(a={"componentRef": 3}), "schema"),
        (lambda told: container(told).update(image="python:3.9"), "component rounds: its image"),
        (
            lambda told: container(told).update(args=[]),
            "component rounds: its command does not run",
        ),
        (
            lambda told: container(told)["command"].insert(2, "pip install kfp &&"),
            "component rounds: its command installs packages",
        ),
        (
            lambda told: container(told)["resources"].update(resourceMemoryLimit="80Gi"),
            "component rounds: its limits are",
        ),
        (
            lambda told: container(told)["resources"].pop("accelerator"),
            "component rounds: it asks for 0 GPUs",
        ),
        (lambda told: told["deploymentSpec"]["executors"].pop("exec-publish"), "has components"),
    ],
)
def test_yaml_that_is_not_what_is_meant_is_refused(text, change, words):
    from cloud_server.kubeflow.compiling import require_as_meant

    require_as_meant(text, IMAGE, 1)
    told = yaml.safe_load(text)
    change(told)
    with pytest.raises(ExportError, match=words):
        require_as_meant(yaml.safe_dump(told), IMAGE, 1)


def container(told):
    return told["deploymentSpec"]["executors"]["exec-rounds"]["container"]
