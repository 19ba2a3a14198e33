"""Reads an app's lines with the client `cloudfoundry-client`, unmodified, and prints each as one JSON string."""

import asyncio
import json
import sys

from cloudfoundry_client.doppler.client import DopplerClient
from cloudfoundry_client.rlpgateway.client import RLPGatewayClient
from oauth2_client.credentials_manager import CredentialManager, ServiceInformation

what, endpoint, app, token, count = sys.argv[1:]
credentials = CredentialManager(ServiceInformation(None, None, "cf", "", [], False))
# As it stands there once it has logged in.
credentials._access_token = token


def show(payload):
    print(json.dumps(payload), flush=True)


async def gateway():
    lines = 0
    async for event in RLPGatewayClient(endpoint, None, False, credentials).stream_logs(app):
        if not event.startswith(b"data: "):
            continue
        for envelope in json.loads(event.removeprefix(b"data: "))["batch"]:
            show(envelope["log"]["payload"])
            lines += 1
        if lines >= int(count):
            return


if what == "gateway":
    asyncio.run(gateway())
else:
    client = DopplerClient(endpoint, None, False, credentials)
    envelopes = client.recent_logs(app) if what == "recent" else client.stream_logs(app)
    for number, envelope in enumerate(envelopes, 1):
        show(envelope.logMessage.message.decode())
        if number >= int(count):
            break
