"""Command line of the cloud side: cloud-server."""

from cloud_server.cli import (
    channel_commands,
    init_command,
    k8s_commands,
    key_commands,
    label_commands,
    model_commands,
    robot_commands,
    rollout_commands,
    simulate_commands,
    status_commands,
    sync_command,
    token_commands,
)
from cloud_server.cli.assistants import mcp_command
from cloud_server.cli.engines import (
    adapter_commands,
    compress_command,
    import_command,
    serve_command,
    side_by_side_command,
)
from cloud_server.cli.pipelines import pipeline_commands
from cloud_server.cli.profiles import profile_commands
from cloud_server.cli.runs import compare_command, evaluate_command, run_commands
from cloud_server.cli.terminal import Directory, console, with_given_directory
from cloud_server.cli.upkeep import backup_commands, doctor_commands, web_command
from fleet_model.command_line.app import make_app, run_app

app = make_app(
    "Federated learning for fleets of robots: the server side.",
    "0 done, 2 wrong settings or flags, 3 damaged bundle or backup, 4 request does not fit, "
    "6 refused, 7 no connection, 8 checkpoint does not fit, 9 export failed, 10 round failed, "
    "12 disk full or damaged, 13 done, but not for all robots, 14 run stopped, 16 trained, but not "
    "published",
)
app.command(context_settings={"allow_extra_args": True})(init_command.init)
app.command()(run_commands.train)
app.command()(evaluate_command.evaluate)
app.command()(status_commands.status)
app.command()(status_commands.history)
app.command()(status_commands.report)
app.command()(web_command.web)
app.command()(simulate_commands.simulate)
app.command()(import_command.import_engine)
app.command()(compress_command.compress)
app.command()(serve_command.serve_adapters)
app.command()(side_by_side_command.compare)
app.command()(mcp_command.mcp)
app.command()(doctor_commands.doctor)
app.command()(doctor_commands.repair)
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)
run_commands.runs.command("compare")(compare_command.runs_compare)
app.add_typer(run_commands.runs, name="runs")
app.add_typer(run_commands.schedule, name="schedule")
app.add_typer(robot_commands.app, name="robots")
robot_commands.app.add_typer(token_commands.app, name="token")
model_commands.app.command()(channel_commands.publish)
model_commands.app.command()(channel_commands.promote)
model_commands.app.command()(channel_commands.assign)
model_commands.app.command()(channel_commands.unassign)
model_commands.app.command("sync")(sync_command.models_sync)
app.add_typer(model_commands.app, name="models")
app.add_typer(rollout_commands.app, name="rollout")
app.add_typer(adapter_commands.app, name="adapters")
app.add_typer(profile_commands.app, name="profiles")
app.add_typer(key_commands.app, name="keys")
app.add_typer(label_commands.app, name="labels")
app.add_typer(k8s_commands.app, name="k8s")
app.add_typer(pipeline_commands.app, name="pipeline")


@app.command()
def renew_certificate(directory: Directory) -> None:
    """Make a new server certificate, e.g. for other names in server.toml; then restart."""
    from cloud_server.initialize import renew_certificate as renew
    from cloud_server.state.directory import ServerDirectory

    names = renew(ServerDirectory(directory))
    console().print(f"[green]new certificate[/] for {', '.join(names)}; restart the server")


@app.command()
def start(directory: Directory) -> None:
    """Serve robots and the operator until Ctrl-C or SIGTERM."""
    from cloud_server.server import serve
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.logs import log_to_stderr
    from cloud_server.state.settings import load_settings

    server_dir = ServerDirectory(directory)
    server_dir.require()
    log_to_stderr(load_settings(server_dir.settings).log, directory)
    serve(server_dir)


def main() -> None:
    """Run the command line."""
    run_app(app, "cloud-server", with_given_directory)
