"""The examples in --help are commands that can be typed."""

import shlex

import pytest
import typer

import cloud_server.cli
import edge_agent.cli
import site_relay.cli

PROGRAMS = {
    "cloud-server": cloud_server.cli.app,
    "edge-agent": edge_agent.cli.app,
    "site-relay": site_relay.cli.app,
}


def examples(command):
    for line in (command.help or "").splitlines():
        if line.startswith("Example: "):
            yield line.removeprefix("Example: ")
    for inner in getattr(command, "commands", {}).values():
        yield from examples(inner)


EXAMPLES = [line for app in PROGRAMS.values() for line in examples(typer.main.get_command(app))]


def test_the_commands_that_one_needs_first_have_one():
    begun = {" ".join(line.split()[:2]) for line in EXAMPLES}
    assert begun == {
        "cloud-server compress",
        "cloud-server init", "cloud-server k8s", "cloud-server mcp", "cloud-server pipeline",
        "cloud-server robots",
        "edge-agent collect", "edge-agent enroll", "edge-agent extract", "edge-agent inspect",
        "edge-agent label",
        "edge-agent predict", "edge-agent serve", "site-relay init",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["enroll", "extract", "inspect", "predict"])
def test_labels_of_recordings_have_the_same_names_in_every_command(name):
    command = typer.main.get_command(PROGRAMS["edge-agent"]).commands[name]
    assert {"--label-topic", "--labels"} <= {word for one in command.params for word in one.opts}


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_can_be_typed(line):
    program, *words = shlex.split(line)
    command = typer.main.get_command(PROGRAMS[program])
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)  # a word that it does not know is an error
