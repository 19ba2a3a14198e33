"""A producer or a consumer of loggregator.v2 on gRPC's C core: nothing of it was written here but these lines.

produce ADDRESS NAME CA CERT KEY COUNT   sends COUNT numbered lines, then keeps its stream open until the server ends it
consume ADDRESS NAME CA CERT KEY COUNT   reads COUNT lines, which must be in order, then on until the server ends the stream
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


def produce(make, there, count):
    Batch, Envelope = make("EnvelopeBatch"), make("Envelope")
    ended = threading.Event()

    def batches():
        for first in range(0, count, 100):
            batch = Batch()
            for i in range(first, min(first + 100, count)):
                batch.batch.add(timestamp=i, source_id="peer", instance_id="0").log.payload = b"%d " % i + b"x" * 200
            yield batch
        say("sent")
        ended.wait()

    call = there.stream_unary(
        "/loggregator.v2.Ingress/BatchSender",
        request_serializer=Batch.SerializeToString,
        response_deserializer=make("BatchSenderResponse").FromString,
    )
    try:
        _, outcome = call.with_call(batches())
        say("ended", outcome.code().name)
    except grpc.RpcError as error:
        say("ended", error.code().name, error.details())
    ended.set()


def consume(make, there, count):
    Batch = make("EnvelopeBatch")
    request = make("EgressBatchRequest")(use_preferred_tags=True)
    request.selectors.add(source_id="peer").log.SetInParent()
    call = there.unary_stream(
        "/loggregator.v2.Egress/BatchedReceiver",
        request_serializer=request.__class__.SerializeToString,
        response_deserializer=Batch.FromString,
    )
    stream = call(request)
    stream.initial_metadata()
    say("open")
    got = 0
    try:
        for batch in stream:
            for envelope in batch.batch:
                if not envelope.log.payload.startswith(b"%d " % got) or envelope.timestamp != got:
                    return say("line", got, "was due, and came", envelope.log.payload[:20])
                got += 1
            if got < 1000:
                # Slow at first: the server meets closed windows.
                time.sleep(0.2)
            if got == count:
                say("got", got)
        say("ended", stream.code().name)
    except grpc.RpcError as error:
        say("ended", error.code().name, error.details())


role, address, name, ca, cert, key, count = sys.argv[1:]
{"produce": produce, "consume": consume}[role](messages(), channel(address, name, ca, cert, key), int(count))
