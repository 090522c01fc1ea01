"""Read both forms of a launch file strictly, where ROS's own `launch` is not there.

Each form becomes a Description: arguments, variables of the environment, nodes. What this reader
does not know (another action, another attribute, another substitution) is an error, never left out.
Texts that depend on arguments stay templates: "$(var name)" and "$(find-pkg-share package)", the
words of the XML form.
"""

import importlib.util
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from types import ModuleType


@dataclass
class Description:
    arguments: dict = field(default_factory=dict)  # name -> (default, description)
    environment: dict = field(default_factory=dict)
    nodes: list = field(default_factory=list)  # of dict


NODE = dict.fromkeys(
    ("package", "executable", "name", "namespace", "output", "arguments", "condition"), ""
)


def read_xml(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == "launch", root.tag
    found = Description()
    actions = {"arg": _xml_arg, "set_env": _xml_set_env, "node": _xml_node}
    for element in root:
        actions[element.tag](found, element)  # KeyError: an unknown action
    return found


def _attributes(element, *names):
    """Return the attributes in order; another one or a missing one is an error."""
    assert element.keys() == list(names), (element.tag, element.keys())
    return [element.get(name) for name in names]


def _xml_arg(found, element):
    name, default, description = _attributes(element, "name", "default", "description")
    found.arguments[name] = (default, description)


def _xml_set_env(found, element):
    name, value = _attributes(element, "name", "value")
    found.environment[name] = value


_XML_NODE = {
    "pkg": "package",
    "exec": "executable",
    "name": "name",
    "namespace": "namespace",
    "output": "output",
    "args": "arguments",
    "if": "condition",
}


def _xml_node(found, element):
    node = {**NODE, "parameters": [], "remappings": []}
    for name, value in element.items():
        node[_XML_NODE[name]] = value  # KeyError: an unknown attribute
    for child in element:
        if child.tag == "param" and child.get("from"):
            node["parameters"] += _attributes(child, "from")
        elif child.tag == "param":
            name, value, kind = _attributes(child, "name", "value", "type")
            assert kind == "str", kind  # without a type, a folder named 010 is the number 8
            node["parameters"].append({name: value})
        elif child.tag == "remap":
            node["remappings"].append(tuple(_attributes(child, "from", "to")))
        else:
            raise KeyError(child.tag)
    found.nodes.append(node)


def read_python(path):
    """Run the file with stand-ins for `launch` and `launch_ros`: only what is known here."""
    modules = _stand_ins()
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        spec = importlib.util.spec_from_file_location("launch_file", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = Description()
        for action in module.generate_launch_description():
            action(found)
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module:
                sys.modules[name] = module
    return found


def _stand_ins():
    def module(name, **content):
        made = ModuleType(name)
        vars(made).update(content)
        return name, made

    return dict(
        [
            module("launch", LaunchDescription=list),
            module(
                "launch.actions",
                DeclareLaunchArgument=_declare_argument,
                SetEnvironmentVariable=_set_environment,
            ),
            module("launch.conditions", IfCondition=lambda condition: condition),
            module(
                "launch.substitutions",
                LaunchConfiguration=lambda name: f"$(var {name})",
                PathJoinSubstitution="/".join,
            ),
            module("launch_ros"),
            module("launch_ros.actions", Node=_node),
            module(
                "launch_ros.parameter_descriptions",
                ParameterFile=lambda file: file,
                ParameterValue=_text_value,
            ),
            module(
                "launch_ros.substitutions",
                FindPackageShare=lambda package: f"$(find-pkg-share {package})",
            ),
        ]
    )


def _declare_argument(name, *, default_value, description):
    def act(found):
        found.arguments[name] = (default_value, description)

    return act


def _set_environment(name, value):
    def act(found):
        found.environment[name] = value

    return act


def _text_value(value, *, value_type):
    assert value_type is str, value_type
    return value


def _joined(parts):
    return parts if isinstance(parts, str) else "".join(parts)


def _node(*, parameters=(), remappings=(), condition=None, arguments=(), **words):
    unknown = words.keys() - NODE.keys()
    assert not unknown, unknown

    def act(found):
        found.nodes.append(
            {
                **NODE,
                **words,
                "arguments": " ".join(arguments),
                "condition": condition or "",
                "parameters": list(parameters),
                "remappings": [(source, _joined(target)) for source, target in remappings],
            }
        )

    return act


def resolved(text, values, shares):
    """Return a template with its arguments and packages filled in."""
    for name, value in values.items():
        text = text.replace(f"$(var {name})", value)
    for package, share in shares.items():
        text = text.replace(f"$(find-pkg-share {package})", str(share))
    assert "$(" not in text, text
    return text


def command_of(node, values, shares, prefix):
    """Return what `ros2 launch` would run of a node, or None where its condition is false."""
    fill = lambda text: resolved(text, values, shares)  # noqa: E731
    if node["condition"] and fill(node["condition"]) != "true":
        return None
    program = prefix / node["package"] / "lib" / node["package"] / node["executable"]
    command = [str(program), *fill(node["arguments"]).split(), "--ros-args"]
    command += ["-r", f"__node:={node['name']}"]
    if namespace := fill(node["namespace"]):
        command += ["-r", f"__ns:=/{namespace.strip('/')}"]
    for source, target in node["remappings"]:
        command += ["-r", f"{fill(source)}:={fill(target)}"]
    for one in node["parameters"]:
        if isinstance(one, str):
            command += ["--params-file", fill(one)]
        else:
            command += [w for name in one for w in ("-p", f"{name}:='{fill(one[name])}'")]
    return command
