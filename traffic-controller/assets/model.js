// What the picture of the pipeline shows. Pure.
//
// What enters: an overview and its rates. What leaves: columns of nodes, and links between them with what flows and what is lost on its way.

import { count, short } from "./format.js";
import { keyOf, summed } from "./rates.js";

const MOST = 8; // nodes of a column that are drawn one by one

/**
 * `{ columns: [[title, nodes]], links }`. Nodes have `key`, `title` and texts; links have `from`, `to`, `rate`, `lost` per second, and
 * `shown`: the rate that stands beside them, or null. `roles` remembers, by address, what has answered once: what is missing later is of that
 * role.
 */
export function model(overview, rates, roles) {
  const stage = (name) => overview.stages.filter((stage) => stage.stage === name);
  const agents = stage("agent").map((stage) => stageNode(stage, "agent", rates));
  if (agents.length === 0)
    agents.push({ key: "agents", title: "agents", line: `${short(rates.sources.size)} sources` });
  const dopplers = stage("doppler").map((stage) => stageNode(stage, "doppler", rates));
  const controllers = stage("traffic_controller").map((stage) => stageNode(stage, "traffic controller", rates));
  const adapters = stage("adapters").map((stage) => stageNode(stage, "adapters", rates));
  for (const { address } of overview.drains) {
    if (!adapters.some((adapter) => adapter.address === address)) {
      adapters.push({ key: `adapters ${address}`, title: "adapters", address });
    }
  }
  for (const { address } of dopplers) roles.set(address, "doppler");
  for (const { address } of adapters) roles.set(address, "adapters");
  for (const address of overview.missing) {
    const role = roles.get(address) ?? "doppler";
    const node = { key: `missing ${address}`, title: `${role}: cannot be asked`, address, state: "away" };
    (role === "doppler" ? dopplers : adapters).push(node);
  }
  const served = [...controllers, ...adapters];
  const ends = [
    ...shortened(
      overview.consumers.filter((consumer) => consumer.stage === "traffic_controller"),
      (consumer) => consumerNode(consumer, rates),
      "consumers",
    ),
    ...shortened(overview.drains, (drain) => drainNode(drain, rates), "drains"),
  ];
  const links = [
    ...dopplers.flatMap((doppler) => agents.map((agent) => incoming(agent, doppler, rates, agents.length === 1))),
    ...dopplers.flatMap((doppler, at) => served.map((reader) => taken(doppler, reader, rates, at === 0))),
    ...ends.map((end) => ({ from: end.from, to: end.key, rate: end.rate, lost: end.lost ?? 0, shown: end.rate })),
  ];
  if (ends.length === 0) ends.push({ key: "nobody", title: "nobody reads now", state: "nothing" });
  return {
    columns: [
      ["Come in", agents],
      ["Routed and cached", dopplers],
      ["Served", served],
      ["Read by", ends],
    ],
    links: links.filter((link) => served.concat(agents, dopplers).some(({ key }) => key === link.from)),
  };
}

/** A consumer without a name of its own is a number: `#12`. */
export function named(name) {
  return name.startsWith("#") ? `consumer ${name}` : name;
}

/** A rate, or a dash before it is known. */
export function per(rate) {
  return rate === null ? "–/s" : `${short(rate)}/s`;
}

/** A table of reasons as text. */
export function reasons(dropped) {
  return Object.entries(dropped ?? {})
    .filter(([, envelopes]) => envelopes !== "0")
    .map(([reason, envelopes]) => `${reason} ${count(Number(envelopes))}`)
    .join(", ");
}

function stageNode(stage, title, rates) {
  const key = `${stage.stage} ${stage.address}`;
  const lost = summed(stage.dropped);
  return {
    key,
    title,
    address: stage.address,
    line: `${per(rates.per(`received ${key}`))} in · ${per(rates.per(`delivered ${key}`))} out`,
    bad: lost > 0 ? `${count(lost)} dropped: ${reasons(stage.dropped)}` : "",
  };
}

function consumerNode(consumer, rates) {
  const key = keyOf(consumer);
  const dropped = Number(consumer.dropped);
  return {
    key,
    title: named(consumer.name),
    line: `${per(rates.per(`taken ${key}`))} · ${short(Number(consumer.waiting_envelopes))} waiting`,
    bad: dropped > 0 ? `${count(dropped)} dropped` : "",
    from: `traffic_controller ${consumer.address}`,
    rate: rates.per(`taken ${key}`),
    lost: rates.per(`lost ${key}`),
  };
}

function drainNode(drain, rates) {
  const key = `${drain.address} ${drain.name}`;
  const dropped = summed(drain.dropped);
  return {
    key: `drain ${key}`,
    title: drain.name,
    line: `${per(rates.per(`drained ${key}`))} · ${drain.state}`,
    bad: drain.last_error || (dropped > 0 ? `${count(dropped)} dropped: ${reasons(drain.dropped)}` : ""),
    from: `adapters ${drain.address}`,
    rate: rates.per(`drained ${key}`),
    lost: rates.per(`undrained ${key}`),
  };
}

// What a doppler receives stands beside its link; where several agents are told apart, none knows how much of it is its own.
function incoming(agent, doppler, rates, only) {
  const away = doppler.state === "away";
  const rate = away ? 0 : rates.per(`received ${doppler.key}`);
  return {
    from: agent.key,
    to: doppler.key,
    rate,
    lost: (away || !only ? 0 : rates.per(`dropped ${doppler.key}`)) ?? 0,
    shown: away || !only ? null : rate,
  };
}

// What a reader takes from all dopplers stands once, where their curves meet.
function taken(doppler, reader, rates, first) {
  const received = rates.per(`received ${reader.key}`);
  const away = doppler.state === "away" || reader.state === "away";
  return {
    from: doppler.key,
    to: reader.key,
    rate: away ? 0 : (received ?? rates.per(`delivered ${doppler.key}`)),
    lost: (first ? rates.per(`dropped ${reader.key}`) : 0) ?? 0,
    shown: first ? received : null,
  };
}

function shortened(all, make, what) {
  const nodes = all.slice(0, MOST).map(make);
  if (all.length > MOST) {
    const title = `${count(all.length - MOST)} more ${what}`;
    nodes.push({
      key: `more ${what}`,
      title,
      line: "in the table below",
      state: "nothing",
      from: nodes[0].from,
      rate: null,
    });
  }
  return nodes;
}
