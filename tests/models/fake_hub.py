"""A hub on the loopback that serves one repository as the real one does, for the calls that autolabel makes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(repository: str, files: Mapping[str, bytes], lies: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve ``files`` at revision main; ``lies`` are false hashes to state. Yields the address."""
    stated = {name: (lies or {}).get(name, hashlib.sha256(data).hexdigest()) for name, data in files.items()}

    def entry(name: str, key: str) -> dict[str, object]:
        lfs = {"sha256": stated[name], "oid": stated[name], "size": len(files[name]), "pointerSize": 130}
        blob = {"size": len(files[name]), "blobId": stated[name][:40], "oid": stated[name][:40], "type": "file"}
        return {key: name, **blob, **({"lfs": lfs} if name.endswith((".safetensors", ".pt", ".bin")) else {})}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/":
                self.answer(b"hub")
            elif path.startswith(f"/api/models/{repository}/tree/"):
                self.answer(json.dumps([entry(name, "path") for name in files]).encode())
            elif path in (f"/api/models/{repository}", f"/api/models/{repository}/revision/main"):
                info = {"id": repository, "sha": COMMIT, "siblings": [entry(name, "rfilename") for name in files]}
                self.answer(json.dumps(info).encode())
            elif path.startswith(f"/{repository}/resolve/") and path.rpartition("/")[2] in files:
                name = path.rpartition("/")[2]
                self.answer(files[name], {"ETag": f'"{stated[name]}"', "X-Repo-Commit": COMMIT})
            else:
                headers = {"X-Error-Code": "RepoNotFound"}
                self.answer(b'{"error": "Repository not found"}', headers, 404)

        def answer(self, data: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
