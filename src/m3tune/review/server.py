"""The review page on this machine's loopback address, and nowhere else."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable

from m3tune.errors import M3TuneError
from m3tune.review.sitting import Sitting

_LOOPBACK = "127.0.0.1"


def serve(sitting: Sitting, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; `announce` gets its address as soon as it answers there. Port 0 is any free one.

    Raises M3TuneError where the port is taken, or FastAPI or uvicorn are not installed.
    """
    try:
        import uvicorn

        from m3tune.review.page import make_app
    except ModuleNotFoundError as error:
        raise M3TuneError(
            f"the review page needs {error.name}", fix="pip install 'm3tune[review]', or review with --terminal"
        ) from None
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_LOOPBACK, port))
        except OSError as error:
            raise M3TuneError(
                f"cannot listen there ({error.strerror})", where=f"{_LOOPBACK}:{port}", fix="name another --port"
            ) from None
        listening.listen()
        port = listening.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = make_app(sitting, token, {f"{_LOOPBACK}:{port}", f"localhost:{port}"})
        # No access log: the token stands in every line of it.
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
        announce(f"http://{_LOOPBACK}:{port}/{token}/")
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
