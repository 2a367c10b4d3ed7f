"""An object store in memory over HTTP, with as much of S3 as signed URLs, ranges and lists need.

It checks no signature (a real store does, in tests/e2e/kubernetes); it can be told to misbehave.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

Fault = Callable[[str, str], int]
"""(method, path) -> the status to answer with, 0 = serve; -1 = break in the middle of the body."""


class ObjectServer:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, float] = {}
        self.log: list[tuple[str, str]] = []
        self.fault: Fault = lambda _method, _path: 0
        self.page = 1000
        self.url = ""

    def put(self, path: str, data: bytes) -> str:
        self.objects[path] = data
        return f"{self.url}/{path}"

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    store = ObjectServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _key(self) -> str:
            return unquote(urlsplit(self.path).path).lstrip("/")

        def _refused(self) -> bool:
            store.log.append((self.command, self._key()))
            status = store.fault(self.command, self._key())
            if status > 0:
                self._answer(status, b"<Error><Message>so it was told</Message></Error>")
            return status > 0

        def _answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._refused():
                store.objects[self._key()] = data
                self._answer(200, b"", ETag=f'"{md5(data).hexdigest()}"')

        def do_POST(self) -> None:
            """A list of objects to delete."""
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self._refused():
                return
            keys = [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]
            for key in keys:
                store.objects.pop(f"{self._key().rstrip('/')}/{unescape(key)}", None)
            rows = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            body = f"<DeleteResult>{rows}</DeleteResult>".encode()
            self._answer(200, body, Content_Type="application/xml")

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if self._refused():
                return
            if "list-type" in query:
                self._list(query)
                return
            data = store.objects.get(self._key())
            if data is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
                return
            about = {"ETag": f'"{md5(data).hexdigest()}"', "Last_Modified": formatdate(usegmt=True)}
            start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            if store.fault(self.command, self._key()) == -1:
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                self.wfile.write(data[start : start + len(data) // 3])
                self.close_connection = True
            elif start:
                self._answer(206, data[start:], **about)
            else:
                self._answer(200, data, **about)

        do_HEAD = do_GET

        def _list(self, query: dict[str, list[str]]) -> None:
            bucket = f"{self._key().rstrip('/')}/"
            prefix = query.get("prefix", [""])[0]
            after = query.get("continuation-token", query.get("start-after", [""]))[0]
            found = [key.removeprefix(bucket) for key in store.keys(bucket + prefix)]
            found = [key for key in found if key > after]
            page = found[: store.page]
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(store.objects[bucket + key])}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag></Contents>"
                for key in page
            )
            more = "".join(
                f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
                for last in page[-1:]
                if len(found) > len(page)
            )
            text = f"<ListBucketResult>{rows}{more}</ListBucketResult>"
            self._answer(200, text.encode(), Content_Type="application/xml")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
