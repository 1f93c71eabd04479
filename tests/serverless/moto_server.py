"""A simulated AWS for tests: moto, in a process on loopback that prints its address.

    python -m tests.serverless.moto_server

It ends when its standard input is closed, so that it cannot outlive the test run.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any


@contextmanager
def simulated_aws() -> Iterator[str]:
    """Run the server, and yield the address at which it serves every AWS service."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.serverless.moto_server"],
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

    import_original, put_original = (
        APIGatewayBackend.import_rest_api,
        APIGatewayBackend.put_rest_api,
    )

    # Chalice sends Swagger 2 without a description, which AWS accepts. moto requires a description
    # and OpenAPI 3, but reads only parts that are the same in Swagger 2.
    def import_rest_api(self: Any, api_doc: dict[str, Any], fail_on_warnings: bool) -> Any:
        api_doc["info"].setdefault("description", "")
        return import_original(self, api_doc, fail_on_warnings)

    def put_rest_api(self: Any, function_id: str, api_doc: dict[str, Any], **options: Any) -> Any:
        del api_doc["swagger"]
        return put_original(self, function_id, api_doc, **options)

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
