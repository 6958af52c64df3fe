"""From the command's options to a server that listens: the socket, the token, the address that is printed."""

import secrets
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from fabulate.errors import ConfigError, RunError
from fabulate.studio.app import application
from fabulate.studio.places import Roots

LOCAL = ("127.0.0.1", "::1", "localhost")
SHORTEST = 16  # characters of a token that other machines could try


def serve(
    folders: list[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    page: str = "",
    browser: bool,
    say: Callable[[str], None],
) -> None:
    """Serve the studio of some folders until a signal ends it.

    `port`: 0 takes one that is free. `token`: by default a random one. `page`: the screen that the address opens, as it
    stands behind #; by default the first. Errors: `ConfigError` for another host than this
    machine's own without a token; `RunError` for a port that is taken, and for folders that are none.
    """
    anywhere = host not in LOCAL
    if anywhere and token is None:
        raise ConfigError(
            f"--host {host} lets other machines in, so it needs a --token of your own, {SHORTEST} characters or more"
        )
    if token is not None and (len(token) < SHORTEST or not token.isalnum()):
        raise ConfigError(f"--token must be {SHORTEST} letters and digits or more, given {len(token)} characters")
    roots = Roots(folders)
    for folder in roots.folders:
        if not folder.is_dir():
            raise RunError(f"there is no folder {folder}: give those that hold your images and runs")
    token = token or secrets.token_urlsafe(24)
    listening = bound(host, port)
    port = listening.getsockname()[1]
    if anywhere:
        say("Warning: other machines can reach this studio, unencrypted; whoever has its address can train and read.")
    hosts = (*LOCAL, socket.gethostname(), host)
    app = application(roots, token, port, hosts, anywhere)
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/?token={token}{f'#{page}' if page else ''}"
    say(f"The studio is open at\n\n    {address}\n\nCtrl-C closes it; trainings that it began go on.")
    if browser:
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, server_header=False)
    server = uvicorn.Server(config)
    app.state.closing = lambda: server.should_exit
    with listening:
        server.run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Errors: `RunError` where the port is taken or the host is none."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RunError(f"cannot listen at {host}:{port}: {error.strerror or error}; try another --port") from error
