// Every call of hot-shots once, over UDP to the port given: nothing of what it sends was written here.
'use strict';

const { StatsD } = require('hot-shots');

const client = new StatsD({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  prefix: 'shop.',
  globalTags: { env: 'prod-eu' },
  includeDatadogTags: false,
  errorHandler: (error) => {
    throw error;
  },
});
client.increment('orders');
client.increment('orders', 4);
client.decrement('orders', 2);
client.gauge('depth', 70);
client.gaugeDelta('depth', -20);
client.timing('took', 320);
client.histogram('size', 7);
client.distribution('spread', 9);
client.set('users', 'anna');
client.unique('users', 'bob');
client.event('deployed', 'line one\nline two', { priority: 'low', alert_type: 'success' });
client.check('db.up', client.CHECKS.CRITICAL, { hostname: 'web-1', message: 'no answer' });
client.close((error) => {
  if (error) throw error;
});
