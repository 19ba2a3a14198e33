// Somebody at the live page: a headless Chromium, and what one does there.
//
// CHROMIUM URL STORY [WORD…]: plays a story of those below. On standard output it says what it has come to, one a line; where it says
// `await …` it waits for a line on standard input. Ends with `done`, or with what was wrong. Every wait is bounded.
'use strict';

const assert = require('node:assert/strict');
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { createInterface } = require('node:readline');
const { chromium } = require('playwright-core');

const PATIENCE = 30_000;
const LONGEST_TASK = 250; // milliseconds that the page may not answer

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (text) => console.log(text);
const told = async (what) => {
  say(`await ${what}`);
  return (await lines.next()).value;
};

class Visitor {
  constructor(page, url) {
    Object.assign(this, { page, url, wrong: [] });
    const { host } = new URL(url);
    page.setDefaultTimeout(PATIENCE);
    page.on('pageerror', (error) => this.wrong.push(`error: ${error.stack}`));
    page.on('dialog', (dialog) => this.wrong.push(`dialog: ${dialog.message()}`));
    page.on('request', (request) => {
      if (new URL(request.url()).host !== host) this.wrong.push(`outside: ${request.url()}`);
    });
    page.on('console', (message) => {
      if (message.type() === 'error' && !/status of 40[01]/.test(message.text()))
        this.wrong.push(`console: ${message.text()} ${message.location().url}`);
    });
  }

  async watch() {
    await this.page.addInitScript(() => {
      globalThis.watched = { longest: 0, violations: [] };
      new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) watched.longest = Math.max(watched.longest, duration);
      }).observe({ type: 'longtask', buffered: true });
      addEventListener('securitypolicyviolation', (event) =>
        watched.violations.push(`${event.violatedDirective} ${event.blockedURI}`),
      );
    });
  }

  go(fragment) {
    return this.page.goto(`${this.url}/${fragment}`);
  }

  // Awaits until `test`, which runs on the page, holds.
  until(test, argument) {
    return this.page.waitForFunction(test, argument, { timeout: PATIENCE });
  }

  figure(name, value) {
    return this.until(([name, value]) => document.getElementById('figures').dataset[name] === value, [name, value]);
  }

  figures() {
    return this.page.evaluate(() =>
      Object.fromEntries(
        Object.entries(document.getElementById('figures').dataset).map(([name, value]) => [name, Number(value)]),
      ),
    );
  }

  text(selector, text) {
    return this.page.locator(selector).filter({ hasText: text }).first().waitFor({ timeout: PATIENCE });
  }

  // The texts of rows in sight, from top to bottom.
  rows() {
    return this.page.evaluate(() => {
      const found = [...document.querySelectorAll('.row')].map((row) => [
        row.getBoundingClientRect().top,
        row.querySelector('.text').textContent,
      ]);
      return found.sort((a, b) => a[0] - b[0]).map(([, text]) => text);
    });
  }

  // Whether the page has always answered.
  async answers() {
    const { longest } = await this.page.evaluate(() => watched);
    assert.ok(longest <= LONGEST_TASK, `the page did not answer for ${longest} ms`);
  }

  async end() {
    const { violations } = await this.page.evaluate(() => watched);
    assert.deepEqual([...this.wrong, ...violations], []);
  }
}

const stories = {
  // COUNT lines of `loud`, as they come, then a hundred more; and all of them again.
  async load(visitor, count) {
    const { page } = visitor;
    await visitor.go('#s=loud');
    await visitor.text('#state', 'live');
    await told('load');
    await visitor.figure('received', count);
    const { held, lost } = await visitor.figures();
    assert.ok(held <= 55_001 && lost === 0, `${held} held, ${lost} lost`);
    await visitor.until(
      (last) => document.getElementById('rows').textContent.includes(`line ${last} `),
      Number(count) - 1,
    );

    await visitor.answers();

    // A window that grows is no wish to stop.
    const { width, height } = page.viewportSize();
    for (const more of [-200, 200, 0]) {
      await page.setViewportSize({ width, height: height + more });
      await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
      assert.equal(await page.locator('#state', { hasText: 'live' }).count(), 1, `followed at ${more} px more`);
    }

    // A filter leaves what matches of all that is held, and marks it.
    await page.keyboard.press('/');
    await page.keyboard.type('/line \\d+777 /');
    await visitor.until(() => document.querySelectorAll('.row mark').length > 10);
    assert.ok((await visitor.rows()).every((row) => / \d*777 /.test(row) || /live/.test(row)));
    await page.fill('#filter', 'no line has this');
    await visitor.until(() =>
      [...document.querySelectorAll('.row')].every((row) => row.classList.contains('kind-mark')),
    );
    await page.fill('#filter', '');
    await visitor.until(() => Number(document.getElementById('figures').dataset.shown) > 50_000);

    // Somebody scrolls up: it stays there, and what comes is told.
    await page.hover('#list');
    await page.mouse.wheel(0, -500);
    await visitor.text('#state', 'paused');
    const before = (await visitor.rows())[10];
    await told('hundred');
    await visitor.text('#newer', '100 new lines');
    assert.equal((await visitor.rows())[10], before);
    await page.click('#newer');
    await visitor.text('#state', 'live');
    await visitor.until(() => document.getElementById('rows').textContent.includes('more 99'));

    // The oldest that is held, and further back in the cache, to the first line there ever was.
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('g');
    for (let pages = 0; !(await visitor.rows()).some((row) => row.startsWith('line 0 ')); pages += 1) {
      assert.ok(pages < 200, 'the beginning is not reached');
      const { held } = await visitor.figures();
      await page.keyboard.press('g');
      await visitor.until(
        (held) =>
          Number(document.getElementById('figures').dataset.held) !== held ||
          document.getElementById('older').textContent.startsWith('nothing'),
        held,
      );
      await visitor.until(
        () =>
          document.getElementById('older').hidden ||
          !document.getElementById('older').textContent.startsWith('reading'),
      );
    }
    const first = (await visitor.rows())
      .filter((row) => row.startsWith('line '))
      .map((row) => Number(row.split(' ')[1]));
    assert.deepEqual(
      first,
      first.map((_, place) => first[0] + place),
      'without a gap or a repeat',
    );

    await visitor.answers();

    // A link to a line opens there.
    await page.locator('.row', { hasText: 'line 7 ' }).first().locator('.text').click();
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.getByText('Link to this line').click();
    const link = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(link, /#s=loud&t=\d+$/);
    await page.goto('about:blank');
    await page.goto(link);
    await visitor.text('.row.here', 'line 7 ');
    await visitor.text('.row', 'line 6 ');
  },

  // Lines, names and JSON of somebody who means harm.
  async harm(visitor) {
    const { page } = visitor;
    await visitor.go('');
    await visitor.text('.source', '<img src=x onerror=alert(1)>');
    await page.locator('.source', { hasText: '<img' }).click();
    await visitor.figure('received', '4');
    const rows = await visitor.rows();
    for (const text of [
      '<script>alert(1)</script>',
      '<img src="http://example.invalid/x.png" onerror="alert(1)">',
      'red and plain␇',
    ]) {
      assert.ok(rows.includes(text), `${text} in ${rows.join('\n')}`);
    }
    assert.equal(await page.locator('.row .fg-1', { hasText: 'red' }).count(), 1);
    await page.locator('.row', { hasText: 'a message' }).locator('.text').click();
    await visitor.text('.detail .json-text', '<b>bold</b>');
    await visitor.text('.detail dd', '"><script>alert(2)</script>');
    assert.equal(await page.locator('img, .row script, .row b:not(.field b), iframe').count(), 0);
    for (const view of ['2', '3', '4', '1']) await page.keyboard.press(view);
    await page.setViewportSize({ width: 360, height: 740 });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), 'it fits');
  },

  // A connection that breaks, and a gap.
  async interruption(visitor) {
    const { page } = visitor;
    let broken = () => {};
    let first = true;
    await page.routeWebSocket(/\/v2\/stream/, (socket) => {
      const server = socket.connectToServer();
      if (!first) return;
      first = false;
      broken = () => {
        socket.send(
          JSON.stringify({
            gap: {
              source_id: 'app',
              envelopes: '12',
              reason: 'queue_full',
              stage: 'doppler',
              first_timestamp: '1',
              last_timestamp: '1',
            },
          }),
        );
        server.close();
        socket.close({ code: 1001 });
      };
    });
    await visitor.go('#s=app');
    await visitor.figure('received', '10');
    await visitor.text('#state', 'live');
    broken();
    await visitor.text('.row.kind-gap', '12 lines of app lost here: queue_full at the doppler');
    await told('ten');
    await visitor.figure('received', '20');
    await visitor.text('.row.kind-mark', 'goes on where it ended');
    const rows = (await visitor.rows()).filter((row) => row.startsWith('line '));
    assert.deepEqual(
      rows,
      Array.from({ length: 20 }, (_, at) => `line ${at}`),
    );
    // Everything, and one of several sources beside another.
    await page.locator('.source', { hasText: 'Everything' }).click();
    await told('ten live');
    await visitor.figure('received', '10');
    await page.locator('.source', { hasText: 'app' }).first().click();
    await page.locator('.source', { hasText: 'other' }).click({ modifiers: ['Shift'] });
    await visitor.figure('received', '31');
    await visitor.text('.row .source-name', 'other');
    // By keys: the next source, levels, pause.
    await page.click('#levels .level-error');
    assert.match(page.url(), /lv=warn,info,debug,none|lv=warn%2Cinfo%2Cdebug%2Cnone/);
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('Space');
    await visitor.text('#state', 'paused');
    await page.keyboard.press('?');
    await visitor.text('#help', 'a regular expression');
    await page.keyboard.press('Escape');
  },

  // Metrics of `app`, and the picture of the pipeline.
  async metrics(visitor) {
    const { page } = visitor;
    await visitor.go('#view=metrics&s=app');
    for (const name of ['cpu', 'hits', 'latency']) await visitor.text('.chart h3', name);
    await visitor.text('.chart:has(h3[title="cpu"]) .unit', 'percentage');
    await page.locator('.chart:has(h3[title="cpu"]) svg').hover({ position: { x: 395, y: 60 } });
    await visitor.text('.chart:has(h3[title="cpu"]) .now', '42');
    await visitor.text('.chart:has(h3[title="cpu"]) .legend .at', ':');
    await visitor.until(() => document.querySelectorAll('.chart .series, .chart .dot').length >= 3);
    await page.locator('#metric-names button', { hasText: 'latency' }).click();
    await visitor.until(() => document.querySelectorAll('#charts .chart').length === 1);
    await visitor.text('.chart .legend', 'p95');
    assert.match(page.url(), /m=latency/);
    await page.keyboard.press('3');
    await visitor.text('.node', 'traffic controller');
    await visitor.text('.node', 'doppler');
    await visitor.text('.tables td', 'syslog://127.0.0.1:9');
    await page.keyboard.press('4');
    await visitor.text('.roles', '127.0.0.1:');
    await page.click('#theme');
    assert.match(await page.evaluate(() => document.documentElement.dataset.theme), /dark|light/);
  },

  // Questions in PromQL about `app`: `requests` of two instances, and `cpu`, whose label means harm.
  async promql(visitor) {
    const { page } = visitor;
    const offered = (text) =>
      visitor.until(
        (text) => [...document.querySelectorAll('#promql-offers .label')].some((label) => label.textContent === text),
        text,
      );
    const field = (text) => visitor.until((text) => document.getElementById('promql').value === text, text);
    await visitor.go('#view=metrics&s=app');
    await visitor.text('.chart h3', 'requests');
    // Aggregations, metrics and labels are offered as they are typed.
    await page.click('#promql');
    await page.keyboard.type('su');
    await offered('sum');
    await page.keyboard.press('Tab');
    await field('sum(');
    await page.keyboard.type('rate(reques');
    await offered('requests');
    await page.keyboard.press('Tab');
    await page.keyboard.type('[1m])) by (inst');
    await offered('instance_id');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.keyboard.type(')');
    const query = 'sum(rate(requests[1m])) by (instance_id)';
    await field(query);
    await page.keyboard.press('Enter');
    // A line and a value for each instance.
    await visitor.text('#answer tr', 'instance_id=0');
    await visitor.text('#answer tr', 'instance_id=1');
    await visitor.until(() => document.querySelectorAll('#answer .series').length === 2);
    assert.equal(new URLSearchParams(new URL(page.url()).hash.slice(1)).get('pq'), query);
    await page.locator('#answer svg').hover({ position: { x: 800, y: 60 } });
    await visitor.text('#answer .legend', 'instance_id=1');
    // What is wrong is said in the words of the server; what was offered for another text is not taken.
    await page.fill('#promql', '');
    await page.keyboard.type('sum(ra');
    await offered('rate');
    await page.keyboard.press('ArrowDown');
    await page.fill('#promql', 'sum(requests');
    await page.keyboard.press('Enter');
    await visitor.text('#promql-error', 'parse error');
    await field('sum(requests');
    assert.equal(await page.getAttribute('#promql', 'aria-invalid'), 'true');
    // What was asked before comes back.
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('ArrowUp');
    await field(query);
    await page.keyboard.press('Enter');
    await visitor.text('#answer tr', 'instance_id=1');
    await page.locator('#promql-error').waitFor({ state: 'hidden' });
    // Labels of others are text, in the table and in the list.
    const harm = '<img src=x onerror=alert(1)>';
    await page.fill('#promql', 'cpu + ignoring (odd) group_left () cpu');
    await page.keyboard.press('Enter');
    await visitor.text('#answer tr', harm);
    await page.fill('#promql', '');
    await page.keyboard.type('cpu{odd="');
    await offered(harm);
    assert.equal(await page.locator('img').count(), 0);
    await page.keyboard.press('Escape');
    // A number, and the address again.
    await page.fill('#promql', 'vector(6) * 7');
    await page.keyboard.press('Enter');
    await visitor.text('#answer .number', '42');
    await page.reload();
    await field('vector(6) * 7');
    await visitor.text('#answer .number', '42');
    await page.setViewportSize({ width: 360, height: 740 });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), 'it fits');
    await page.fill('#promql', '');
    await page.keyboard.press('Enter');
    await page.locator('#answer').waitFor({ state: 'hidden' });
  },

  // A pipeline that asks for a token.
  async login(visitor, token) {
    const { page } = visitor;
    await visitor.go('#s=app');
    await page.fill('#token', 'hy_not-a-token');
    await page.keyboard.press('Enter');
    await visitor.text('#login-error', 'not known');
    await page.fill('#token', token);
    await page.keyboard.press('Enter');
    await visitor.figure('received', '10');
    await visitor.text('#state', 'live');
    assert.ok(
      !(await page.locator('#source-list').textContent()).includes('other'),
      'it shows what the token may read',
    );
    const kept = await page.evaluate(() =>
      [
        location.href,
        document.cookie,
        JSON.stringify({ ...localStorage, ...sessionStorage }),
        document.documentElement.outerHTML,
      ].join(),
    );
    assert.ok(!kept.includes(token), 'the token is nowhere that a script can read it');
    const [cookie] = await page.context().cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, 'Strict']);
    await page.reload();
    await visitor.figure('received', '10');
    await page.click('#logout');
    await page.locator('#token').waitFor();
    assert.equal((await page.context().cookies()).length, 0);
  },
};

async function main([executablePath, url, story, ...words]) {
  const profile = mkdtempSync(join(tmpdir(), 'page-'));
  const args = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ];
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    args,
    viewport: { width: 1440, height: 900 },
  });
  try {
    const [page] = context.pages();
    const visitor = new Visitor(page, url);
    await visitor.watch();
    await stories[story](visitor, ...words).catch(async (error) => {
      const [rows, figures] = await Promise.all([visitor.rows(), visitor.figures()]).catch(() => [[], {}]);
      throw new Error(
        `${error.stack}\n${JSON.stringify(figures)}\n${rows.slice(0, 60).join('\n')}\n${visitor.wrong.join('\n')}`,
      );
    });
    await visitor.end();
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

main(process.argv.slice(2)).then(
  () => {
    say('done');
    process.exit(0);
  },
  (error) => {
    say(`failed ${JSON.stringify(error.message)}`);
    process.exit(1);
  },
);
