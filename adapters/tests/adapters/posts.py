"""An HTTPS server of Python's standard library that tells what it was sent, one JSON object a line.

CERT KEY CA [RULE ...]; with a CA it wants a certificate of it from clients, without one (-) it wants none. The first line is its port.
A rule says how a request is answered; the first that fits counts, 204 is the answer without one:
  TEXT=STATUS      while the body holds TEXT
  >BYTES=STATUS    while the body is longer
  #N=STATUS        the first N requests; with STATUS/SECONDS, a Retry-After
After STATUS, ! closes the connection, and ~ begins an answer that does not end.
"""
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

cert, key, ca, *rules = sys.argv[1:]
seen = 0
one_at_a_time = threading.Lock()


def answer(body):
    global seen
    seen += 1
    for rule in rules:
        what, status = rule.rsplit("=", 1)
        if what.startswith(">"):
            fits = len(body) > int(what[1:])
        elif what.startswith("#"):
            fits = seen <= int(what[1:])
        else:
            fits = what in body
        if fits:
            return status.partition("/")
    return "204", "", ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status, _, after = answer(body)
        self.close_connection = status.endswith("!")
        endless = status.endswith("~")
        status = status.rstrip("!~")
        told = {"path": self.path, "headers": dict(self.headers.items()), "body": body, "status": int(status)}
        with one_at_a_time:
            print(json.dumps({**told, "client": self.client_address[1]}), flush=True)
        self.send_response(int(status))
        if after:
            self.send_header("Retry-After", after)
        if status.startswith("3"):
            self.send_header("Location", "https://127.0.0.1:1/elsewhere")
        if self.close_connection:
            self.send_header("Connection", "close")
        if endless:
            self.send_header("Content-Length", "1000000")
        elif status != "204":
            self.send_header("Content-Length", "4")
        self.end_headers()
        if endless:
            time.sleep(60)
        if status != "204":
            self.wfile.write(b"text")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
if ca != "-":
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
server = Server(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
