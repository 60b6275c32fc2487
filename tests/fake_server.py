"""A server on loopback for tests to talk to: in a thread of this process, silent, and gone with its block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, port: int, handler: type["Handler"], play: Any) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.play = play

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up on us is part of the play."""


class Handler(BaseHTTPRequestHandler):
    """Answers by what is played: `self.server.play`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[Handler], play: Any = None, *, port: int = 0) -> Iterator[str]:
    """Serve while the block lasts. Gives the address, http://127.0.0.1:PORT; port 0 is any free one."""
    server = Server(port, handler, play)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
