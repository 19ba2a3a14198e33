// A producer or a consumer of loggregator.v2 on grpc-js: nothing of it was written here but these lines.
//
// produce ADDRESS NAME CA CERT KEY COUNT   sends COUNT numbered lines, then keeps its stream open until the server ends it
// consume ADDRESS NAME CA CERT KEY COUNT   reads COUNT lines, which must be in order, then on until the server ends the stream
'use strict';

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const definitions = loader.loadSync(['loggregator/v2/ingress.proto', 'loggregator/v2/egress.proto'], {
  includeDirs: [join(__dirname, '../../../../proto/proto')],
  keepCase: true,
  longs: Number,
});
const { v2 } = grpc.loadPackageDefinition(definitions).loggregator;

const say = (...words) => console.log(words.join(' '));
const ended = ({ code, details }) => say('ended', grpc.status[code], ...(code === grpc.status.OK ? [] : [details]));

function options(name, ca, cert, key) {
  const credentials = grpc.credentials.createSsl(readFileSync(ca), readFileSync(key), readFileSync(cert));
  return [credentials, { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name }];
}

async function produce(address, count, credentials) {
  const call = new v2.Ingress(address, ...credentials).BatchSender(() => {});
  call.on('status', ended);
  call.on('error', () => {});
  for (let first = 0; first < count; first += 100) {
    const line = (_, i) => ({
      timestamp: first + i,
      source_id: 'peer',
      instance_id: '0',
      log: { payload: Buffer.from(`${first + i} ${'x'.repeat(200)}`) },
    });
    if (!call.write({ batch: Array.from({ length: Math.min(100, count - first) }, line) })) {
      await new Promise((resolve) => call.once('drain', resolve));
    }
  }
  say('sent');
}

async function consume(address, count, credentials) {
  const selectors = [{ source_id: 'peer', log: {} }];
  const stream = new v2.Egress(address, ...credentials).BatchedReceiver({ use_preferred_tags: true, selectors });
  stream.on('metadata', () => say('open'));
  stream.on('status', ended);
  let got = 0;
  try {
    for await (const { batch } of stream) {
      for (const { timestamp, log } of batch) {
        if (timestamp !== got || !log.payload.toString('latin1').startsWith(`${got} `)) {
          say('line', got, 'was due, and came', log.payload.toString('latin1', 0, 20));
          process.exit(1);
        }
        got += 1;
      }
      if (got < 1000) {
        // Slow at first: the server meets closed windows.
        await sleep(200);
      }
      if (got === count) {
        say('got', got);
      }
    }
  } catch {
    // The status has been said.
  }
}

const [role, address, name, ca, cert, key, count] = process.argv.slice(2);
({ produce, consume })[role](address, Number(count), options(name, ca, cert, key));
