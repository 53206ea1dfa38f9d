"""Serves the page and, as it asks for them, the spikes of an open file; to this machine alone."""

import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from srcsnn.errors import RasterError
from srcsnn.rasters.reader import Raster
from srcsnn.rasters.viewer.page import block_steps, packed_bits, served_page

_LOOPBACK = "127.0.0.1"


class _Server(ThreadingHTTPServer):
    # `Any`: a socket, which the base class types as one or as a pair with bytes.
    def handle_error(self, request: Any, client_address: object) -> None:  # noqa: ANN401
        """Says nothing of connections that are gone: nobody wants the answer.

        The other side has cut them, or Ctrl-C has closed them while their thread began.
        """
        if not isinstance(sys.exception(), ConnectionError) and request.fileno() >= 0:
            super().handle_error(request, client_address)


def serve(
    raster: Raster, port: int = 0, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serves until it is interrupted.

    Spikes are read for one request at a time, as HDF5 wants it. Requests under another name than
    that of this machine are refused: a page from elsewhere must not read the file through the
    browser.

    Args:
        raster: An open file.
        port: To listen at; 0 lets the system choose.
        ready: Called with the address of the page.

    Raises:
        RasterError: If the port cannot be had, or the file is damaged.
    """
    page = served_page(raster).encode()
    layers = list(raster.values())
    block = block_steps(raster)
    reading = Lock()

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # a connection that says nothing is let go

        def do_GET(self) -> None:  # named by the base class
            if self.headers.get("Host", "").rsplit(":", 1)[0] not in (_LOOPBACK, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN, "only for this machine")
                return
            try:
                asked = urlsplit(self.path)
            except ValueError:  # no address at all
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            if asked.path == "/":
                self._answer(page, "text/html; charset=utf-8")
            elif asked.path == "/bits":
                self._answer_bits(asked.query)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer_bits(self, query: str) -> None:
            try:
                fields = parse_qs(query)
                layer, first = layers[int(fields["layer"][0])], int(fields["first"][0])
                if not 0 <= first < layer.recorded or int(fields["layer"][0]) < 0:
                    raise ValueError("no such step")
            except (KeyError, ValueError, IndexError):
                self.send_error(HTTPStatus.BAD_REQUEST, "asks for no layer and step of the file")
                return
            try:
                with reading:
                    bits = packed_bits(layer, first, first + block)
            except RasterError as error:
                self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=str(error))
                return
            self._answer(bits.tobytes(), "application/octet-stream")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # the page does not want it any more
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: the page tells what it asks for."""

    try:
        server = _Server((_LOOPBACK, port), Handler)
    except OSError as cause:
        raise RasterError(
            f"cannot serve at port {port}: {cause.strerror}; choose another, or 0 for any"
        ) from cause
    with server, suppress(KeyboardInterrupt):
        ready(f"http://{_LOOPBACK}:{server.server_port}/")
        server.serve_forever()
