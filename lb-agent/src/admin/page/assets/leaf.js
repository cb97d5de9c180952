// The pages of one service, of one backend, and of what happened.

import { draw, drawShare, share, spark } from "./chart.js";
import { stopped } from "./model.js";
import { ago, brief, bytes, clock, count, el, look, mark, millis, say } from "./show.js";

/** What a state means for flows, new and old. */
const MEANING = {
  UP: "Takes new flows by its weight.",
  DOWN: "Takes no new flows.",
  DRAIN: "Takes no new flows; those it has go on until they end.",
  MAINT: "Taken out for maintenance: no new flows, those it has go on.",
  NOLB: "Takes no new flows yet, or no more; those it has go on.",
};

function meaning(row, col) {
  const [word] = row[col.status].split(" ");
  if (word !== "UP" || row[col.share]) return MEANING[word];
  return row[col.weight] ? "Up, and waits: others are used before it." : "Up, but its weight is 0: it takes no new flows.";
}

/** Three large charts; the ring of one name each. */
function charts(rings) {
  const parts = [
    ["rate", "New flows a second", (value) => brief(value ?? 0)],
    ["flows", "Active flows", (value) => brief(value ?? 0)],
    ["time", "Handshake", millis],
  ].map(([name, word, show]) => {
    const now = el("b");
    const most = el("span");
    const chart = spark();
    const node = el("div", { class: `chart card k-${name}` }, el("p", {}, el("span", {}, word), now), chart, el("p", {}, most));
    return { name, now, most, chart, node, show };
  });
  return {
    node: el("div", { class: "cards" }, ...parts.map(({ node }) => node)),
    update() {
      for (const { name, now, most, chart, show } of parts) {
        const ring = rings()[name];
        const known = ring.list().filter((value) => !Number.isNaN(value));
        const top = draw(chart, ring);
        say(now, show(known.at(-1)));
        say(most, known.length ? `highest ${show(top)} in ${ago(known.length)}` : "nothing yet");
      }
    },
  };
}

function facts(rows) {
  const shown = rows.map(([word, value]) => ({ value, node: el("dd"), word }));
  const list = el("dl", { class: "facts" }, ...shown.map(({ word, node }) => el("div", {}, el("dt", {}, word), node)));
  return { node: list, update: (...seen) => shown.forEach(({ value, node }) => say(node, value(...seen) || "–")) };
}

/** How the table stands to what came: `want` from weights, `got` from new flows since the page was opened. */
function shares(model, service) {
  const body = el("tbody");
  const table = el(
    "table",
    { class: "plain" },
    el("caption", { class: "unseen" }, "Share of new flows: by weight and as it came"),
    el("thead", {}, el("tr", {}, ...["Server", "State", "By weight", "As it came", "Share"].map((word, at) => el("th", { scope: "col", class: at === 2 || at === 3 ? "num" : null }, word)))),
    body,
  );
  const note = el("p", { class: "key" });
  const rows = new Map();
  const from = new Map();
  const node = el(
    "section",
    { class: "card" },
    el("h3", {}, "Share of new flows"),
    el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Share of new flows" }, table),
    el("p", { class: "key" }, el("span", {}, el("i", { class: "want" }), "share of the table, by weight"), el("span", {}, el("i"), "share of the new flows that came")),
    note,
  );
  const update = () => {
    const { col } = model;
    const came = new Map();
    for (const row of service.S) {
      const sid = row[col.sid];
      if (!from.has(sid)) from.set(sid, row[col.lbtot] ?? 0);
      came.set(sid, Math.max(0, (row[col.lbtot] ?? 0) - from.get(sid)));
    }
    let flows = [...came.values()].reduce((sum, value) => sum + value, 0);
    const late = flows < 50;
    if (late) {
      for (const row of service.S) came.set(row[col.sid], row[col.lbtot] ?? 0);
      flows = [...came.values()].reduce((sum, value) => sum + value, 0);
    }
    say(note, `${count(flows)} new flows, ${late ? "since the backends came" : "since this page was opened"}.`);
    const lines = service.S.map((row) => ({
      row,
      want: row[col.share] ?? 0,
      got: flows ? came.get(row[col.sid]) / flows : null,
    }));
    const most = Math.max(0.01, ...lines.map(({ want, got }) => Math.max(want, got ?? 0)));
    const stays = new Set();
    for (const { row, want, got } of lines) {
      const sid = row[col.sid];
      stays.add(sid);
      let line = rows.get(sid);
      if (!line) {
        line = { chart: share(), pill: el("span", { class: "pill" }), want: el("td", { class: "num" }), got: el("td", { class: "num" }) };
        line.node = el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#/backend/${service.id}/${sid}` }, row[col.svname])), el("td", {}, line.pill), line.want, line.got, el("td", {}, line.chart));
        rows.set(sid, line);
        body.append(line.node);
      }
      say(line.pill, row[col.status]);
      mark(line.pill, "data-s", look(row[col.status]));
      say(line.want, `${(want * 100).toFixed(1)} %`);
      say(line.got, got == null ? "–" : `${(got * 100).toFixed(1)} %`);
      drawShare(line.chart, want, got, most);
    }
    for (const [sid, line] of rows) {
      if (stays.has(sid)) continue;
      line.node.remove();
      rows.delete(sid);
    }
  };
  return { node, update };
}

/** Whether an event is of this service or one of its backends. */
function about(service, { service: name }) {
  const own = [service.name, ...service.addrs.map((addr) => (addr.includes(":") ? `[${addr}]` : addr))];
  return own.some((host) => host && name === `${host}:${service.port}/${service.proto}`);
}

/** Changes of state, newest first; `filter` says which, `level` how high the heading stands. */
export function happenings(ask, filter, heading, level = "h3") {
  const body = el("tbody");
  const none = el("p", {}, "Nothing has changed since the agent keeps count.");
  const table = el(
    "table",
    { class: "plain" },
    el("caption", { class: "unseen" }, heading),
    el("thead", {}, el("tr", {}, ...["When", "Service", "Backend", "Was", "Is", "Why"].map((word) => el("th", { scope: "col" }, word)))),
    body,
  );
  const node = el("section", { class: "card" }, el(level, {}, heading), el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": heading }, table), none);
  let seen = "";
  const load = async () => {
    const events = (await ask()).filter(filter).sort((a, b) => b.at - a.at).slice(0, 500);
    const now = JSON.stringify(events);
    if (now === seen) return;
    seen = now;
    none.hidden = events.length > 0;
    table.hidden = events.length === 0;
    const state = (word) => (word ? el("span", { class: "pill", "data-s": look(word) }, word) : "");
    body.replaceChildren(
      ...events.map(({ at, service, backend, was, is, why }) => el("tr", {}, el("td", {}, clock(at)), el("td", {}, service ?? ""), el("td", {}, backend ?? ""), el("td", {}, state(was)), el("td", {}, state(is)), el("td", {}, why ?? ""))),
    );
  };
  return { node, load };
}

/** What keeps a service from taking new flows as it should; nothing if nothing does. */
function trouble(service, col) {
  if (stopped(service, col)) return "Stopped by the operator: new flows are refused, those that there are go on.";
  if (service.failopen) return "All its backends are down, so new flows go to them all the same.";
  if (!service.S.length) return "It has no backend: new flows are refused.";
  return service.B[col.status] === "DOWN" ? "No backend takes new flows: they are refused." : "";
}

/** The page of one service. */
export function servicePage(model, service, events) {
  const large = charts(() => service);
  const parts = shares(model, service);
  const told = happenings(events, (event) => about(service, event), "What happened");
  const pill = el("span", { class: "pill" });
  const { col } = model;
  const list = facts([
    ["Name", () => service.name],
    ["Stands at", () => service.addrs.map((addr) => (addr.includes(":") ? `[${addr}]:${service.port}` : `${addr}:${service.port}`)).join(", ")],
    ["Ports of the node", () => service.external?.join(", ")],
    ["Protocol", () => service.proto],
    ["Chosen by", () => service.algo],
    ["Packets from outside", () => service.mode],
    ["Check", () => service.check ?? "none: the orchestrator's word counts"],
    ["Flows ever", () => count(service.F[col.stot])],
    ["Bytes in", () => bytes(service.F[col.bin]) || "not seen: UDP of this node's own processes"],
    ["Bytes out", () => bytes(service.F[col.bout]) || (service.F[col.bin] == null ? "not seen" : "not seen: replies bypass this node")],
    ["Not allowed", () => count(service.F[col.dreq])],
    ["Beyond a limit", () => count(service.F[col.dcon])],
    ["Lost: a table was full", () => count(service.F[col.eint])],
    ["Not answered or refused", () => count(service.B[col.econ])],
  ]);
  const why = el("p", { class: "why" });
  return {
    node: el(
      "div",
      { class: "leaf" },
      el("p", { class: "crumb" }, el("a", { href: "#/" }, "Services"), " / ", service.px),
      el("div", { class: "title" }, el("h2", {}, service.px), pill),
      why,
      large.node,
      parts.node,
      el("section", { class: "card" }, el("h3", {}, "About it"), list.node),
      told.node,
    ),
    load: told.load,
    update() {
      const status = stopped(service, col) ? service.F[col.status] : service.B[col.status];
      say(pill, status);
      mark(pill, "data-s", look(status));
      const said = trouble(service, col);
      say(why, said);
      why.hidden = !said;
      large.update();
      parts.update();
      list.update();
    },
  };
}

/** The page of one backend. `acts`: what may be done. */
export function backendPage(model, service, sid, acts, events) {
  const { col } = model;
  const row = () => model.backend(service, sid);
  const name = row()[col.svname];
  const pill = el("span", { class: "pill" });
  const why = el("p", { class: "why" });
  const rings = acts.rings(service.id, sid);
  const large = charts(() => rings);
  // Where it was last: what happened to it is asked for most when it is gone.
  let at = row()[col.addr];
  const mine = (event) => event.backend === at && (event.service == null || about(service, event));
  const told = happenings(events, mine, "Its history");
  const list = facts([
    ["Address", () => row()[col.addr]],
    ["Task", () => row()[col.task]],
    ["App", () => row()[col.app]],
    ["Known from", () => row()[col.provider]],
    ["Weight in force", () => String(row()[col.weight])],
    ["Weight as configured", () => String(row()[col.uweight])],
    ["Role", () => (row()[col.bck] ? "backup" : "active")],
    ["Last check", () => row()[col.check]],
    ["Failed checks", () => count(row()[col.chkfail])],
    ["Times down", () => count(row()[col.chkdown])],
    ["Time not up", () => ago(row()[col.downtime])],
    ["Times chosen", () => count(row()[col.lbtot])],
    ["Bytes in", () => bytes(row()[col.bin])],
    ["Bytes out", () => bytes(row()[col.bout])],
    ["Refused or not answered", () => count(row()[col.econ])],
    ["Reset by it", () => count(row()[col.eresp])],
    ["SYNs sent again", () => count(row()[col.wretr])],
    ["Flows given to others", () => count(row()[col.wredis])],
  ]);
  const button = (act, word) => el("button", { type: "button", "data-act": act, onclick: () => acts.one(service, sid, act) }, word);
  const weight = el("input", { type: "number", min: 0, max: 256, id: "weight", required: true, value: row()[col.weight] });
  const form = el("form", { class: "weight", onsubmit: (event) => (event.preventDefault(), acts.weigh(service, sid, weight.value)) }, el("label", { for: "weight" }, "Weight"), weight, el("button", {}, "Set"));
  const steer = el("div", { class: "do" }, button("drain", "Drain"), button("maint", "Maintenance"), button("ready", "Ready"), form);
  const node = el(
    "div",
    { class: "leaf" },
    el("p", { class: "crumb" }, el("a", { href: "#/" }, "Services"), " / ", el("a", { href: `#/service/${service.id}` }, service.px), " / ", name),
    el("div", { class: "title" }, el("h2", {}, name), pill),
    why,
    model.admin ? steer : null,
    large.node,
    el("section", { class: "card" }, el("h3", {}, "About it"), list.node),
    told.node,
  );
  return {
    node,
    load: told.load,
    update() {
      const now = row();
      if (!now) {
        say(pill, "gone");
        say(why, "This backend is not there any more.");
        steer.hidden = true;
        return;
      }
      at = now[col.addr];
      const status = now[col.status];
      say(pill, status);
      mark(pill, "data-s", look(status));
      const since = now[col.since] == null ? "" : ` In this state for ${ago((model.now - now[col.since]) / 1000)}.`;
      const because = now[col.why] ? ` Why: ${now[col.why]}.` : "";
      say(why, `${meaning(now, col)}${because}${since}`);
      large.update();
      list.update();
    },
  };
}
