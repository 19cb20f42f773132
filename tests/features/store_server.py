"""A real S3 server (moto's) on a free port of this machine, which can be told to misbehave.

It counts requests, and a rule may answer in its place. A module of its own, so that its process
and those of the tests can import it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "gels"
ACCESS_KEY, SECRET = "nobody", "a-secret-that-must-not-be-seen"

Rule = Callable[[str, str, dict[str, Any]], "tuple[str, bytes] | None"]
"""Gets method, path and WSGI environment; returns a status and a body, or None to let it pass."""


class StoreServer:
    """The server, what it was asked, and the rule it follows."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of all requests."""
        self.rule: Rule | None = None
        self._application = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()  # which moto's dictionaries need
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables by which programs find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests there were by a method, with a text in path or query."""
        return sum(its == method and part in path for its, path in self.requests)

    @contextmanager
    def following(self, rule: Rule | None) -> Iterator[None]:
        """Let a rule answer for a while."""
        self.rule = rule
        try:
            yield
        finally:
            self.rule = None

    def start(self) -> None:
        """Serve, in a thread, nothing yet: moto keeps what it stores for as long as its process."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._thread.start()
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST")).close()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        self.requests.append((method, f"{path}?{environment.get('QUERY_STRING', '')}"))
        answer = self.rule(method, path, environment) if self.rule else None
        if answer is None:
            with self._one_at_a_time:
                return list(self._application(environment, start))
        environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        start(answer[0], [("Content-Length", str(len(answer[1])))])
        return [answer[1] if method != "HEAD" else b""]


def refusal(status: str, code: str) -> tuple[str, bytes]:
    """Return an answer as S3 refuses a request."""
    return status, f"<Error><Code>{code}</Code><Message>{code}!</Message></Error>".encode()
