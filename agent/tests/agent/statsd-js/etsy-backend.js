// A back end of Etsy's statsd daemon that prints what it has summed up at each flush, one line of JSON a flush.
'use strict';

exports.init = (_start, _config, events) => {
  events.on('flush', (_at, metrics) => {
    const sets = Object.fromEntries(Object.entries(metrics.sets).map(([name, set]) => [name, set.values().length]));
    const { counters, gauges, timer_data: timers } = metrics;
    console.log(JSON.stringify({ counters, gauges, sets, timers }));
  });
  return true;
};
