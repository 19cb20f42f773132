"""A server that answers as the Hugging Face hub does for files, for tests on 127.0.0.1 alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What a hub has, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by ``organisation/name/file``."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of some."""
    asked: list[str] = field(default_factory=list)
    """Method and file of each request."""
    address: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub from a local address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as server:
        threading.Thread(target=server.serve_forever).start()
        hub.address = f"http://127.0.0.1:{server.server_port}"
        yield hub
        server.shutdown()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def do_GET(self) -> None:
            self._answer(with_content=True)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

        def _answer(self, *, with_content: bool) -> None:
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            name = f"{repository}/{rest.partition('/')[2]}"
            hub.asked.append(f"{self.command} {name}")
            content = hub.files.get(name)
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = hub.sent.get(name, content)
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_content:
                self.wfile.write(body)

    return Handler
