"""An S3 server of its own on loopback, in a process of its own, whose answers a test can spoil."""

import argparse
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from cluster.paths import OPTIONS

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Store:
    """A running server; ``log`` has a line per spoilt answer."""

    url: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": self.url}


@contextmanager
def object_store(folder: Path, *faults: str) -> Iterator[Store]:
    """Start a server with one bucket; ``faults`` are arguments of :func:`main`."""
    log = folder / "faults.log"
    log.touch()
    command = [sys.executable, "-m", "tests.object_store", "--log", str(log), *faults]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
        try:
            assert server.stdout
            yield Store(server.stdout.readline().strip(), log)
        finally:
            server.kill()


def main() -> None:
    """Serve: every Nth request is answered with 500 or 503, every Nth takes a while."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path)
    parser.add_argument("--fail-every", type=int, default=0)
    parser.add_argument("--slow-every", type=int, default=0)
    parser.add_argument("--slow-seconds", type=float, default=0.3)
    options = parser.parse_args()
    os.environ |= ENVIRONMENT
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app, lock, number = DomainDispatcherApplication(create_backend_app), threading.Lock(), 0

    def spoilt(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        nonlocal number
        with lock:
            number += 1
            mine = number
        if options.slow_every and mine % options.slow_every == 0:
            time.sleep(options.slow_seconds)
        if options.fail_every and mine % options.fail_every == 0:
            status = ("500 Internal Server Error", "503 Slow Down")[mine // options.fail_every % 2]
            with lock, options.log.open("a") as log:
                log.write(f"{status} {environ['REQUEST_METHOD']} {environ['PATH_INFO']}\n")
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(status, [("Content-Type", "application/xml")])
            return [b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"]
        return app(environ, start)

    server = make_server("127.0.0.1", 0, spoilt, threaded=True)
    url = f"http://127.0.0.1:{server.port}"
    os.environ["AWS_ENDPOINT_URL"] = url
    threading.Thread(target=_announce, args=(url,), daemon=True).start()
    server.serve_forever()


def _announce(url: str) -> None:
    fsspec.filesystem("s3", **OPTIONS["s3"]).mkdir(BUCKET)
    print(url, flush=True)


if __name__ == "__main__":
    main()
