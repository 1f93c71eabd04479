"""A TLS endpoint in front of a plain one, with a certificate made for the occasion."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from urllib.parse import urlsplit


@contextmanager
def tls_proxy(endpoint: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve ``endpoint`` over TLS; yield the new address and the certificate to trust."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    address = urlsplit(endpoint)

    class Forward(BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),  # the client does not trust the certificate, or has hung up
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection((address.hostname, address.port)) as server,
            ):
                _forward(client, server)

    with ThreadingTCPServer(("127.0.0.1", 0), Forward) as listener:
        thread = Thread(target=listener.serve_forever, args=[0.02])
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.server_address[1]}", certificate
        finally:
            listener.shutdown()
            thread.join()


def _forward(client: ssl.SSLSocket, server: socket.socket) -> None:
    while readable := select([client, server], [], [], 2)[0]:
        for source, sink in ((client, server), (server, client)):
            if source not in readable:
                continue
            data = source.recv(65536)
            while client.pending():
                data += client.recv(65536)
            if not data:
                return
            sink.sendall(data)
