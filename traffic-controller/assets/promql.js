// The text of a query: which sources its selectors name, and what may be typed next. Pure.
//
// What enters: what somebody has typed. What leaves: the query as it is sent, and what could stand where the caret is. Whether a query is
// right the server says; here words are told apart, no more. *Invariant*: text that is no query is left as it is, or gets one matcher too many.

const AGGREGATIONS = "avg bottomk count count_values group max min quantile stddev stdvar sum topk".split(" ");

const FUNCTIONS = (
  "abs absent absent_over_time acos acosh asin asinh atan atanh avg_over_time ceil changes clamp clamp_max clamp_min cos cosh " +
  "count_over_time day_of_month day_of_week day_of_year days_in_month deg delta deriv exp first_over_time floor " +
  "histogram_quantile holt_winters hour idelta increase irate label_join label_replace last_over_time ln log10 log2 mad_over_time " +
  "max_over_time min_over_time minute month pi predict_linear present_over_time quantile_over_time rad rate resets round scalar sgn " +
  "sin sinh sort sort_desc sqrt stddev_over_time stdvar_over_time sum_over_time tan tanh time timestamp vector year"
).split(" ");

const LISTS = ["by", "without", "on", "ignoring", "group_left", "group_right"]; // a list of labels follows
const WORDS = [...LISTS, "and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"];

const MOST_OFFERS = 50;

const TOKEN =
  /(?<space>\s+|#[^\n]*)|(?<text>"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|`[^`]*`?)|(?<word>[A-Za-z_:][\w:]*)|(?<number>\d[\w.]*|\.\d\w*)|(?<sign>=~|!~|!=|==|<=|>=|[^])/gy;

/** Words, signs and texts of a query with their places; white space and comments are none. */
function tokens(query) {
  const found = [];
  for (const match of query.matchAll(TOKEN)) {
    const { space, ...kinds } = match.groups;
    if (space !== undefined) continue;
    const [kind] = Object.entries(kinds).find(([, text]) => text !== undefined);
    found.push({ kind, text: match[0], from: match.index, to: match.index + match[0].length });
  }
  return found;
}

/** The query with `sources` for each selector that names none. */
export function withSources(query, sources) {
  let told = "";
  let last = 0;
  for (const [place, text] of inserted(query, sources)) {
    told += query.slice(last, place) + text;
    last = place;
  }
  return told + query.slice(last);
}

/** What the server says of the query that was sent, with the place in the one that was typed. */
export function placed(said, query, sources) {
  return said.replace(/(\d+):(\d+)(?=: parse error)/, (_, line, column) => {
    // Columns are characters, places are halves of them.
    const sent = withSources(query, sources).split("\n");
    const before = sent.slice(0, line - 1).reduce((sum, row) => sum + row.length + 1, 0);
    let at = before + [...(sent[line - 1] ?? "")].slice(0, column - 1).join("").length;
    let added = 0;
    for (const [place, text] of inserted(query, sources)) {
      if (place + added >= at) break;
      added += Math.min(text.length, at - place - added);
    }
    at -= added;
    const rows = query.slice(0, at).split("\n");
    return `${rows.length}:${[...rows.at(-1)].length + 1}`;
  });
}

// What is put where: `[[place, text]]`.
function inserted(query, sources) {
  if (sources.length === 0) return [];
  const matcher =
    sources.length === 1 ? `source_id=${quoted(sources[0])}` : `source_id=~${quoted([...new Set(sources)].join("|"))}`;
  const all = tokens(query);
  const inserts = [];
  let open = null; // the brace that is open, and what stands in it
  let bracketed = 0; // durations stand in brackets
  for (let at = 0; at < all.length; at += 1) {
    const { kind, text, from, to } = all[at];
    const next = all[at + 1]?.text;
    if (open) {
      const name = kind === "text" ? text.slice(1, -1) : text;
      if (text === "}") {
        if (!open.named) inserts.push([open.to, open.empty ? matcher : `${matcher},`]);
        open = null;
        continue;
      }
      open.empty = false;
      if (name === "source_id" && (next === "=" || next === "=~")) open.named = true;
    } else if (text === "{") {
      open = { to, named: false, empty: true };
    } else if (text === "[" || text === "]") {
      bracketed = Math.max(0, bracketed + (text === "[" ? 1 : -1));
    } else if (kind === "word" && bracketed === 0) {
      const word = text.toLowerCase();
      if (LISTS.includes(word) && next === "(") at = endOf(all, at + 1);
      else if (!isWord(word, next) && next !== "(" && next !== "{") inserts.push([to, `{${matcher}}`]);
    }
  }
  return inserts;
}

// Whether it is a word of the language here, and no metric.
function isWord(word, next) {
  if (AGGREGATIONS.includes(word)) return LISTS.includes(next?.toLowerCase()) || next === "(";
  return WORDS.includes(word);
}

// Where the list that begins at a token ends.
function endOf(all, at) {
  const end = all.findIndex(({ text }, place) => place > at && text === ")");
  return end < 0 ? all.length : end;
}

/** A text as PromQL writes it. */
function quoted(text) {
  return JSON.stringify(text);
}

/**
 * What stands at the caret: `{ kind, from, to, typed }`, with `kind` `word`, `label` or `value`; with a label `metric`, and with a value
 * `label` too. Null where nothing is to be completed.
 */
export function context(query, caret) {
  const all = tokens(query);
  const before = all.filter(({ from }) => from < caret);
  const here = before.at(-1);
  const touching = here !== undefined && here.to >= caret;
  if (touching && here.kind === "number") return null;
  const typing = touching && here.kind === "word";
  const left = touching && (typing || here.kind === "text") ? before.slice(0, -1) : before;
  const part = { from: caret, to: caret, typed: "" };
  if (typing) Object.assign(part, { from: here.from, to: here.to, typed: query.slice(here.from, caret) });
  const brace = opener(left, "{", "}");
  const last = left.at(-1)?.text;
  if (brace >= 0) {
    const name = left[brace - 1];
    const metric = name?.kind === "word" && name.to === left[brace].from ? name.text : "";
    if (touching && here.kind === "text") {
      const closed = here.text.length > 1 && here.text.at(-1) === here.text[0];
      if (!["=", "!=", "=~", "!~"].includes(last) || (closed && here.to === caret)) return null;
      const label = left.at(-2)?.text ?? "";
      const to = closed ? here.to - 1 : caret;
      const quote = here.text[0];
      return {
        kind: "value",
        label,
        metric,
        from: here.from + 1,
        to,
        typed: query.slice(here.from + 1, caret),
        quote,
        closed,
      };
    }
    return last === "{" || last === "," ? { kind: "label", metric, ...part } : null;
  }
  if (touching && here.kind === "text") return null;
  const list = opener(left, "(", ")");
  if (list > 0 && LISTS.includes(left[list - 1].text.toLowerCase())) {
    const metric = all.find(({ kind, text }, at) => kind === "word" && isMetric(text, all[at + 1]?.text))?.text ?? "";
    return last === "(" || last === "," ? { kind: "label", metric, ...part } : null;
  }
  if (opener(left, "[", "]") >= 0) return null;
  return typing ? { kind: "word", ...part } : null;
}

function isMetric(text, next) {
  return next === "{" || (next === "[" && !WORDS.includes(text));
}

// The place of the bracket that is open at the end; -1 if there is none.
function opener(all, open, close) {
  for (let at = all.length - 1, depth = 0; at >= 0; at -= 1) {
    if (all[at].text === close) depth += 1;
    else if (all[at].text === open && depth-- === 0) return at;
  }
  return -1;
}

/**
 * What could stand at the caret: `[{ text, kind }]`, those first that begin with what is typed. `known` has `metrics`, `labels` and `values`.
 */
export function offers({ kind, typed }, { metrics = [], labels = [], values = [] }) {
  const of = (texts, kind) => texts.map((text) => ({ text, kind }));
  const all =
    kind === "word"
      ? [
          ...of(metrics, "metric"),
          ...of(AGGREGATIONS, "aggregation"),
          ...of(FUNCTIONS, "function"),
          ...of(LISTS.slice(0, 4), "word"),
        ]
      : kind === "label"
        ? of(labels, "label")
        : of(values, "value");
  const wanted = typed.toLowerCase();
  const begins = ({ text }) => text.toLowerCase().startsWith(wanted);
  const contains = ({ text }) => text.toLowerCase().includes(wanted);
  const first = all.filter(begins);
  const found = [...first, ...all.filter((one) => !begins(one) && contains(one))];
  return found.filter(({ text }) => text !== typed).slice(0, MOST_OFFERS);
}

/** The query with an offer taken, and where the caret goes: `[query, caret]`. */
export function taken(query, { kind, from, to, quote, closed }, { text, kind: what }) {
  const rest = query.slice(to);
  let put = quote === '"' ? quoted(text).slice(1, -1) : text;
  if (kind === "value" && !closed) put += quote;
  if (kind === "label" && !/^[A-Za-z_]\w*$/.test(text)) put = quoted(text);
  if ((what === "function" || what === "aggregation") && !/^\s*[({]/.test(rest)) put += "(";
  return [query.slice(0, from) + put + rest, from + put.length];
}
