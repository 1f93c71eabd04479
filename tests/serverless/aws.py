"""AWS for tests, as moto plays it: a process on loopback that prints its address.

    python -m tests.serverless.aws

It ends with its standard input, so that it cannot outlive whoever started it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any


@contextmanager
def aws() -> Iterator[str]:
    """Within it, every service answers at this address."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.serverless.aws"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    from moto.apigateway.models import APIGatewayBackend
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    imported, put = APIGatewayBackend.import_rest_api, APIGatewayBackend.put_rest_api

    # moto wants a description, and OpenAPI 3 of which it reads what Swagger 2 has as well. Chalice
    # sends Swagger 2 without one, as AWS takes it.
    def import_rest_api(self: Any, api_doc: dict[str, Any], fail_on_warnings: bool) -> Any:
        api_doc["info"].setdefault("description", "")
        return imported(self, api_doc, fail_on_warnings)

    def put_rest_api(self: Any, function_id: str, api_doc: dict[str, Any], **options: Any) -> Any:
        del api_doc["swagger"]
        return put(self, function_id, api_doc, **options)

    APIGatewayBackend.import_rest_api = import_rest_api  # type: ignore[method-assign]
    APIGatewayBackend.put_rest_api = put_rest_api  # type: ignore[assignment, method-assign]
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
