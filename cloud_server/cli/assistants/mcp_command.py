"""`cloud-server mcp`."""

from cloud_server.cli.terminal import Directory


def mcp(directory: Directory) -> None:
    """Let an assistant ask about robots, runs and models, by the Model Context Protocol.

    Over stdin and stdout: the assistant starts this command.
    """
    from cloud_server.cli.assistants.service import require_sdk, serve_stdio
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.logs import log_to_stderr
    from cloud_server.state.settings import load_settings

    require_sdk()
    server_dir = ServerDirectory(directory)
    server_dir.require()
    log_to_stderr(load_settings(server_dir.settings).log, directory)
    serve_stdio(directory)
