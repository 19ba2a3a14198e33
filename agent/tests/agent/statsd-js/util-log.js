// The daemon is older than Node: util.log, which it calls, has gone.
'use strict';

require('node:util').log = (...words) => console.error(...words);
