"""A producer or a consumer of loggregator.v2 on gRPC's C core: nothing of it was written here but these lines.

ADDRESS NAME CA CERT KEY COUNT, and on standard input, one a line and all on one channel:
  send   sends COUNT numbered lines, then keeps its stream open until the server ends it
  open   subscribes, and reads nothing yet
  idle   waits until the server wants no more calls on this connection
  read   reads COUNT lines, which must be in order, then on until the server ends the stream
"""
import sys
import threading
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

T = descriptor_pb2.FieldDescriptorProto


def messages():
    file = descriptor_pb2.FileDescriptorProto(name="v2.proto", package="loggregator.v2", syntax="proto3")

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for field, number, kind, of, label in fields:
            made.field.add(name=field, number=number, type=kind, label=label, type_name=of and f".loggregator.v2.{of}")

    one, many = T.LABEL_OPTIONAL, T.LABEL_REPEATED
    message("Log", ("payload", 1, T.TYPE_BYTES, None, one), ("type", 2, T.TYPE_INT32, None, one))
    message(
        "Envelope",
        ("timestamp", 1, T.TYPE_INT64, None, one),
        ("source_id", 2, T.TYPE_STRING, None, one),
        ("log", 4, T.TYPE_MESSAGE, "Log", one),
        ("instance_id", 8, T.TYPE_STRING, None, one),
    )
    message("EnvelopeBatch", ("batch", 1, T.TYPE_MESSAGE, "Envelope", many))
    message("LogSelector")
    message("Selector", ("source_id", 1, T.TYPE_STRING, None, one), ("log", 2, T.TYPE_MESSAGE, "LogSelector", one))
    message(
        "EgressBatchRequest",
        ("shard_id", 1, T.TYPE_STRING, None, one),
        ("use_preferred_tags", 3, T.TYPE_BOOL, None, one),
        ("selectors", 4, T.TYPE_MESSAGE, "Selector", many),
    )
    message("BatchSenderResponse")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"loggregator.v2.{name}"))


def channel(address, name, ca, cert, key):
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])


def say(*words):
    print(*words, flush=True)


class Peer:
    def __init__(self, address, name, ca, cert, key, count):
        self.make = messages()
        self.channel = channel(address, name, ca, cert, key)
        self.count = int(count)

    def send(self):
        Batch = self.make("EnvelopeBatch")
        ended = threading.Event()

        def batches():
            for first in range(0, self.count, 100):
                batch = Batch()
                for i in range(first, min(first + 100, self.count)):
                    batch.batch.add(timestamp=i, source_id="peer", instance_id="0").log.payload = b"%d " % i + b"x" * 200
                yield batch
            say("sent")
            ended.wait()

        call = self.channel.stream_unary(
            "/loggregator.v2.Ingress/BatchSender",
            request_serializer=Batch.SerializeToString,
            response_deserializer=self.make("BatchSenderResponse").FromString,
        )
        try:
            _, outcome = call.with_call(batches())
            say("ended", outcome.code().name)
        except grpc.RpcError as error:
            say("ended", error.code().name, error.details())
        ended.set()

    def open(self):
        request = self.make("EgressBatchRequest")(use_preferred_tags=True)
        request.selectors.add(source_id="peer").log.SetInParent()
        call = self.channel.unary_stream(
            "/loggregator.v2.Egress/BatchedReceiver",
            request_serializer=request.__class__.SerializeToString,
            response_deserializer=self.make("EnvelopeBatch").FromString,
        )
        self.stream = call(request)
        self.stream.initial_metadata()
        say("open")

    def idle(self):
        came = threading.Event()
        self.channel.subscribe(lambda state: came.set() if state is grpc.ChannelConnectivity.IDLE else None)
        came.wait()
        say("idle")

    def read(self):
        got = 0
        try:
            for batch in self.stream:
                for envelope in batch.batch:
                    if not envelope.log.payload.startswith(b"%d " % got) or envelope.timestamp != got:
                        return say("line", got, "was due, and came", envelope.log.payload[:20])
                    got += 1
                if got > 0.95 * self.count:
                    # The last ones slower than they come: the server waits until this client has closed.
                    time.sleep(0.1)
                if got == self.count:
                    say("got", got)
            say("ended", self.stream.code().name)
        except grpc.RpcError as error:
            say("ended", error.code().name, error.details())


peer = Peer(*sys.argv[1:])
for command in sys.stdin:
    getattr(peer, command.strip())()
