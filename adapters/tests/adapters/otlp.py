"""A receiver of OTLP that tells what it was sent, one JSON object a line: gRPC's C core, and the messages as OpenTelemetry publishes them.

grpc|http PORT CERT KEY CA [ANSWER ...]; port 0 is any free one, and CERT - is plain text; with a CA other than - it wants a certificate of
it from clients. The first line is its port. The answers are given to the first requests, in order; then everything is taken:
  ok                  takes it
  partial:N:TEXT      takes all but N items, and says TEXT
  status:N[/SECONDS]  a status of gRPC, with RetryInfo if there are seconds. It says what it was sent as x-canary
  N[/SECONDS]         a status of HTTP, with Retry-After if there are seconds; the same
  huge, nonsense      of HTTP: 200 and a body without end, or one that makes no sense
"""
import gzip
import json
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, json_format, message_factory
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces_grpc

transport, port, cert, key, ca, *answers = sys.argv[1:]
one_at_a_time = threading.Lock()
REQUESTS = {
    "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse, "rejected_data_points"),
    "traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse, "rejected_spans"),
}


def status_messages():
    file = descriptor_pb2.FileDescriptorProto(name="status.proto", package="google.rpc", syntax="proto3")
    file.dependency.extend(["google/protobuf/any.proto", "google/protobuf/duration.proto"])
    field = descriptor_pb2.FieldDescriptorProto
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    of = {"type": field.TYPE_MESSAGE, "label": field.LABEL_REPEATED, "type_name": ".google.protobuf.Any"}
    status.field.add(name="details", number=3, **of)
    info = file.message_type.add(name="RetryInfo")
    of = {"type": field.TYPE_MESSAGE, "label": field.LABEL_OPTIONAL, "type_name": ".google.protobuf.Duration"}
    info.field.add(name="retry_delay", number=1, **of)
    pool = descriptor_pool.Default()
    pool.Add(file)
    find = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
    return find("Status"), find("RetryInfo")


Status, RetryInfo = status_messages()


def status(code, text, seconds):
    made = Status(code=code, message=text)
    if seconds:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(float(seconds) * 1e9))
        info = any_pb2.Any()
        info.Pack(RetryInfo(retry_delay=delay))
        made.details.append(info)
    return made.SerializeToString()


def told(signal, message, headers, **more):
    """Says what came, and returns the answer to it."""
    with one_at_a_time:
        answer = answers.pop(0) if answers else "ok"
        message = json_format.MessageToDict(message)
        line = {"signal": signal, "message": message, "headers": headers, "answer": answer, "at": time.time(), **more}
        print(json.dumps(line), flush=True)
    return answer


def taken(signal, answer):
    _, response, rejected = REQUESTS[signal]
    made = response()
    if answer.startswith("partial:"):
        _, count, text = answer.split(":", 2)
        setattr(made.partial_success, rejected, int(count))
        made.partial_success.error_message = text
    return made


def exporter(signal, base):
    class Exporter(base):
        def Export(self, request, context):
            headers = {name: str(value) for name, value in context.invocation_metadata()}
            answer = told(signal, request, headers, peer=context.peer())
            if not answer.startswith("status:"):
                return taken(signal, answer)
            code, _, seconds = answer.removeprefix("status:").partition("/")
            text = f"no, {headers.get('x-canary', 'nobody')}"
            details = status(int(code), text, seconds)
            if seconds:
                context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(next(known for known in grpc.StatusCode if known.value[0] == int(code)), text)

    return Exporter()


def serve_grpc():
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    logs_grpc.add_LogsServiceServicer_to_server(exporter("logs", logs_grpc.LogsServiceServicer), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(exporter("metrics", metrics_grpc.MetricsServiceServicer), server)
    traces_grpc.add_TraceServiceServicer_to_server(exporter("traces", traces_grpc.TraceServiceServicer), server)
    if cert == "-":
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        read = lambda path: open(path, "rb").read()
        wanted = None if ca == "-" else read(ca)
        credentials = grpc.ssl_server_credentials([(read(key), read(cert))], wanted, ca != "-")
        bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    print(bound, flush=True)
    server.wait_for_termination()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = len(body)
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        signal = self.path.rsplit("/", 1)[1]
        message = REQUESTS[signal][0].FromString(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = told(signal, message, headers, path=self.path, wire=length, whole=len(body))
        code, _, seconds = answer.partition("/")
        if answer == "huge":
            self.send_response(200)
            self.send_header("Content-Length", "10000000")
            self.end_headers()
            self.wfile.write(b"x" * 100000)
            time.sleep(60)
        text = f"no, {headers.get('x-canary', 'nobody')}"
        refused = code.isdecimal()
        if answer == "nonsense":
            reply = b"\xff" * 100
        else:
            reply = status(3, text, None) if refused else taken(signal, answer).SerializeToString()
        self.send_response(int(code) if refused else 200)
        if seconds:
            self.send_header("Retry-After", seconds)
        if code.startswith("3"):
            self.send_header("Location", f"http://127.0.0.1:{port}/v1/logs")
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


def serve_http():
    server = Server(("127.0.0.1", int(port)), Handler)
    if cert != "-":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if ca != "-":
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()


serve_grpc() if transport == "grpc" else serve_http()
