"""An independent client of NATS: reads and writes streams for the tests.

    judge.py URL read STREAM COUNT      the first COUNT messages, a JSON object a line
    judge.py URL numbers STREAM         the number at the end of every message's log line, as a JSON list
    judge.py URL publish                for each JSON object on standard input: publishes it, and prints what the stream answered
    judge.py URL stream JSON            makes a stream
    judge.py URL purge STREAM
    judge.py URL delete STREAM
    judge.py URL info STREAM
"""

import asyncio
import base64
import json
import sys

import nats
from nats.js import api


async def messages(js, stream, count):
    """The first `count` messages of a stream."""
    info = await js.stream_info(stream)
    last = info.state.first_seq + count
    subscription = await js.pull_subscribe(
        ">" if not info.config.subjects else info.config.subjects[0],
        stream=stream,
        config=api.ConsumerConfig(ack_policy=api.AckPolicy.NONE, deliver_policy=api.DeliverPolicy.ALL),
    )
    got = 0
    while got < count:
        for message in await subscription.fetch(min(500, count - got), timeout=10):
            got += 1
            yield message
    assert got <= last


async def main(url, command, *arguments):
    client = await nats.connect(url, allow_reconnect=False)
    js = client.jetstream()
    if command == "read":
        async for message in messages(js, arguments[0], int(arguments[1])):
            print(json.dumps({
                "subject": message.subject,
                "headers": message.headers,
                "payload": base64.b64encode(message.data).decode(),
            }))
    elif command == "numbers":
        info = await js.stream_info(arguments[0])
        numbers = []
        async for message in messages(js, arguments[0], info.state.messages):
            text = message.data.split(b"line ")[1]
            digits = bytes(byte for byte in text[:12] if True)
            end = next((i for i, byte in enumerate(digits) if not 48 <= byte <= 57), len(digits))
            numbers.append(int(digits[:end]))
        print(json.dumps(numbers))
    elif command == "publish":
        for line in sys.stdin:
            wanted = json.loads(line)
            ack = await js.publish(
                wanted["subject"], base64.b64decode(wanted["payload"]), headers=wanted.get("headers"), timeout=5
            )
            print(json.dumps({"seq": ack.seq, "duplicate": bool(ack.duplicate)}))
    elif command == "stream":
        await js.add_stream(api.StreamConfig.from_response(json.loads(arguments[0])))
        print("{}")
    elif command == "purge":
        await js.purge_stream(arguments[0])
        print("{}")
    elif command == "delete":
        await js.delete_stream(arguments[0])
        print("{}")
    elif command == "info":
        info = await js.stream_info(arguments[0])
        print(json.dumps({"messages": info.state.messages, "bytes": info.state.bytes, "subjects": info.config.subjects,
                          "max_bytes": info.config.max_bytes, "duplicate_window": info.config.duplicate_window,
                          "storage": info.config.storage, "consumers": info.state.consumer_count}))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
