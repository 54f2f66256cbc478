"""A server on this machine that speaks OpenAI's protocol as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any, dict[str, str]]


class Fake:
    """Answers requests as `answer` says, and which models it has with `listed`, after those of `listed_first`.

    Keeps every request.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.listed: Answer = (200, {"data": [{"id": "small"}]}, {})
        self.listed_first: list[Answer] = []
        self.answer: Callable[[dict[str, Any]], Answer] = lambda _: says("3")
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send(*(fake.listed_first.pop(0) if fake.listed_first else fake.listed))

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append({"path": self.path, **request})
                fake.headers.append(self.headers)
                self.send(*fake.answer(request))

            def send(self, code: int, body: Any, headers: dict[str, str]) -> None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


def says(text: str) -> Answer:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


@contextmanager
def serving() -> Iterator[Fake]:
    made = Fake()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
