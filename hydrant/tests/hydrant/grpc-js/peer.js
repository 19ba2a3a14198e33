// A producer or a consumer of loggregator.v2 on grpc-js: nothing of it was written here but these lines.
//
// ADDRESS NAME CA CERT KEY COUNT, and on standard input, one a line and all on one channel:
//   send   sends COUNT numbered lines, then keeps its stream open until the server ends it
//   open   subscribes, and reads nothing yet
//   idle   waits until the server wants no more calls on this connection
//   read   reads COUNT lines, which must be in order, then on until the server ends the stream
'use strict';

const { once } = require('node:events');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { createInterface } = require('node:readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const definitions = loader.loadSync(['loggregator/v2/ingress.proto', 'loggregator/v2/egress.proto'], {
  includeDirs: [join(__dirname, '../../../../proto/proto')],
  defaults: true,
  keepCase: true,
  longs: Number,
});
const { v2 } = grpc.loadPackageDefinition(definitions).loggregator;

const say = (...words) => console.log(words.join(' '));
const ended = ({ code, details }) => say('ended', grpc.status[code], ...(code === grpc.status.OK ? [] : [details]));

class Peer {
  constructor(address, name, ca, cert, key, count) {
    const credentials = grpc.credentials.createSsl(...[ca, key, cert].map((file) => readFileSync(file)));
    const options = { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name };
    this.ingress = new v2.Ingress(address, credentials, options);
    this.channel = this.ingress.getChannel();
    this.egress = new v2.Egress(address, credentials, { channelOverride: this.channel });
    this.count = Number(count);
  }

  async send() {
    const { promise: outcome, resolve } = Promise.withResolvers();
    const call = this.ingress.BatchSender((error) => resolve(ended(error ?? { code: grpc.status.OK })));
    // The outcome tells.
    call.on('error', () => {});
    for (let first = 0; first < this.count; first += 100) {
      const line = (_, i) => ({
        timestamp: first + i,
        source_id: 'peer',
        instance_id: '0',
        log: { payload: Buffer.from(`${first + i} ${'x'.repeat(200)}`) },
      });
      if (!call.write({ batch: Array.from({ length: Math.min(100, this.count - first) }, line) })) {
        await once(call, 'drain');
      }
    }
    say('sent');
    await outcome;
  }

  async open() {
    const selectors = [{ source_id: 'peer', log: {} }];
    this.stream = this.egress.BatchedReceiver({ use_preferred_tags: true, selectors });
    this.stream.on('status', (status) => {
      this.status = status;
    });
    // Before the first read, grpc-js takes in whatever comes.
    this.stream.read(0);
    await once(this.stream, 'metadata');
    say('open');
  }

  async idle() {
    let state;
    while ((state = this.channel.getConnectivityState(false)) !== grpc.connectivityState.IDLE) {
      await new Promise((resolve) => this.channel.watchConnectivityState(state, Infinity, resolve));
    }
    say('idle');
  }

  async read() {
    let got = 0;
    try {
      for await (const { batch } of this.stream) {
        for (const { timestamp, log } of batch) {
          if (timestamp !== got || !log.payload.toString('latin1').startsWith(`${got} `)) {
            return say('line', got, 'was due, and came', log.payload.toString('latin1', 0, 20));
          }
          got += 1;
        }
        if (got > 0.95 * this.count) {
          // The last ones slower than they come: the server waits until this client has closed.
          await sleep(100);
        }
        if (got === this.count) {
          say('got', got);
        }
      }
    } catch {
      // The status tells.
    }
    ended(this.status);
  }
}

async function main() {
  const peer = new Peer(...process.argv.slice(2));
  for await (const command of createInterface({ input: process.stdin })) {
    await peer[command]();
  }
  peer.channel.close();
}

main();
