// The stats page: asks the agent every second what changed, and shows that and nothing else anew.

import { draw, spark } from "./chart.js";
import { backendPage, happenings, servicePage } from "./leaf.js";
import { List } from "./list.js";
import { Model, Ring } from "./model.js";
import { Chosen, Refused, done, order, weigh } from "./orders.js";
import { sources, trouble } from "./sources.js";
import { brief, bytes, count, el, mark, say, uptime } from "./show.js";
import { ask, askEvents, askHistory } from "./feed.js";

const EVERY = 1000;
/** After this many failures in a row the agent counts as away; then it is asked less often, ms at most. */
const SLOWEST = 10_000;

const at = (id) => document.getElementById(id);
const main = at("main");
const view = at("view");
const model = new Model();
const chosen = new Chosen(showChosen);
/** Charts of backends whose page was opened. */
const rings = new Map();
const acts = { one: (service, sid, act) => actOn([[service, [sid]]], act), weigh: weighOne, rings: ringsOf, past };
const list = new List(model, acts, chosen);
const countLine = el("p", { class: "shown", role: "status" });
const none = el("p", { class: "none", hidden: true }, "No service matches.");
let leaf = null;
let failures = 0;
let paused = false;
let timer = 0;

// === What the agent tells ===

async function tick() {
  clearTimeout(timer);
  try {
    const answer = await ask(model.seq);
    performance.mark("lb-from");
    const moved = model.take(answer());
    show(moved);
    performance.measure("lb-update", "lb-from");
    if (performance.getEntriesByName("lb-update").length > 600) performance.clearMeasures("lb-update");
    performance.clearMarks("lb-from");
    if (failures) tell("");
    failures = 0;
  } catch (error) {
    failures += 1;
    const why = error instanceof Refused ? error.message : "The answer cannot be shown.";
    tell(`${why} What you see is as it was last.`, "bad");
    if (!(error instanceof Refused)) console.error(error);
  }
  state();
  if (!paused && !document.hidden) timer = setTimeout(tick, failures ? Math.min(EVERY * 2 ** failures, SLOWEST) : EVERY);
}

function show(moved) {
  for (const [key, own] of rings) {
    const [id, sid] = key.split("/").map(Number);
    const row = model.backend(model.services.get(id), sid);
    own.rate.push(row?.[model.col.rate]);
    own.flows.push(row?.[model.col.scur]);
    own.time.push(row?.[model.col.ctime]);
  }
  chosen.keep((service, sid) => model.backend(model.services.get(service), sid));
  showHead();
  showTiles();
  if (!leaf && view.firstElementChild !== countLine) openList();
  if (moved) route();
  if (leaf) leaf.update();
  else {
    if (moved || list.mayMove()) arrange();
    list.update(false);
  }
}

function arrange() {
  const shown = list.arrange();
  const all = model.services.size;
  const of = shown === all ? `${count(all)} services` : `${count(shown)} of ${count(all)} services`;
  say(countLine, `${of}, ${count(model.total?.backends ?? 0)} servers`);
  none.hidden = shown > 0;
}

function showHead() {
  const { agent } = model;
  say(at("process"), `${agent.head}pid = ${agent.pid}, uptime = ${uptime((model.now - agent.started) / 1000)}, current conns = ${model.total.flows}, idle = 100 %`);
  at("live").hidden = false;
  const said = trouble(model);
  say(at("trouble"), said);
  at("trouble").hidden = !said;
  const { warnings, more } = model.about;
  const all = warnings.length + more;
  at("warnings").hidden = !all;
  if (!at("warnings").firstChild) at("warnings").append(el("a", { href: "#/events" }));
  say(at("warnings").firstChild, all === 1 ? "1 warning" : `${count(all)} warnings`);
}

const tiles = {};
function tile(key, word, ring) {
  const value = el("span");
  const note = el("small");
  const chart = ring ? spark() : null;
  tiles[key] = { value, note, chart, ring };
  return el("div", { class: `tile k-${key}` }, el("dt", {}, word), el("dd", {}, el("span", {}, value, " ", note), chart));
}

function showTiles() {
  const { total, sums } = model;
  if (!tiles.services) {
    at("tiles").append(
      tile("services", "Services"),
      tile("servers", "Servers up"),
      tile("rate", "New flows/s", sums.rate),
      tile("flows", "Active flows", sums.flows),
      tile("in", "Bytes in/s", sums.in),
      tile("out", "Bytes out/s", sums.out),
      tile("refused", "Refused"),
    );
    at("tiles").hidden = false;
  }
  const words = {
    services: [count(total.services), total.troubled ? `${count(total.troubled)} in trouble` : "all well"],
    servers: [count(total.up), `of ${count(total.backends)}`],
    rate: [brief(total.rate)],
    flows: [brief(total.flows)],
    in: [total.inSpeed == null ? "–" : bytes(total.inSpeed)],
    out: [total.outSpeed == null ? "–" : bytes(total.outSpeed)],
    refused: [brief(total.refused)],
  };
  for (const [key, [value, note]] of Object.entries(words)) {
    say(tiles[key].value, value);
    say(tiles[key].note, note);
    if (tiles[key].chart) draw(tiles[key].chart, tiles[key].ring);
  }
  tiles.services.note.classList.toggle("bad", total.troubled > 0);
}

function state() {
  mark(at("dot"), "data-is", paused ? "paused" : failures ? "lost" : "live");
  say(at("ago"), paused ? "paused" : failures ? "no answer" : "live");
}

function tell(text, kind = "") {
  const banner = at("banner");
  mark(banner, "data-is", kind);
  say(banner, text);
  banner.hidden = !text;
}

// === Pages ===

function openList() {
  leaf = null;
  view.replaceChildren(countLine, none, list.box);
  arrange();
  list.update(true);
}

function route() {
  const [, page, id, sid] = location.hash.split("/");
  const service = model.services.get(Number(id));
  mark(at("to-services"), "aria-current", page === "events" ? null : "page");
  mark(at("to-events"), "aria-current", page === "events" ? "page" : null);
  const wanted = location.hash;
  if (leaf?.for === wanted && (page === "events" || service)) return;
  if (page === "events") {
    const told = happenings(askEvents, () => true, "What happened", "h2");
    const about = sources(model);
    leaf = { node: el("div", { class: "leaf" }, ...about.nodes, told.node), load: told.load, update: about.update };
  } else if (page === "service" && service) {
    leaf = servicePage(model, service, askEvents);
    past(service);
  } else if (page === "backend" && service && model.backend(service, Number(sid))) {
    leaf = backendPage(model, service, Number(sid), acts, askEvents);
  } else if (["service", "backend"].includes(page) && model.seq) {
    leaf = { node: el("p", { class: "none" }, "There is no such service or server any more. ", el("a", { href: "#/" }, "All services")), update() {} };
  } else {
    if (leaf || view.firstElementChild !== countLine) openList();
    tools();
    return;
  }
  leaf.for = wanted;
  tools();
  view.replaceChildren(leaf.node);
  leaf.update();
  load();
}

/** The tools belong to the list. */
function tools() {
  at("tools").hidden = Boolean(leaf);
  at("tiles").hidden = Boolean(leaf);
}

async function load() {
  const own = leaf;
  while (own && own === leaf && own.load && !paused) {
    try {
      await own.load();
    } catch (error) {
      if (!(error instanceof Refused)) console.error(error);
    }
    await new Promise((go) => setTimeout(go, 2 * EVERY));
  }
}

/** Services and backends whose last minutes are still to be asked for, and how many are asked for at present. */
const wanted = [];
let asking = 0;
const AT_ONCE = 3;

/** Asks once for what came before the page was opened, of what is looked at. */
function past(service) {
  if (service.asked) return;
  service.asked = true;
  wanted.push(service);
  if (asking < AT_ONCE) askPast();
}

async function askPast() {
  asking += 1;
  for (let service = wanted.pop(); service; service = wanted.pop()) {
    const told = await askHistory(service).catch(() => null);
    if (!told) continue;
    service.rate.precede(told.rate);
    service.flows.precede(told.flows);
    service.time.precede(told.time);
  }
  asking -= 1;
  leaf?.update();
}

function ringsOf(id, sid) {
  const key = `${id}/${sid}`;
  if (!rings.has(key)) {
    if (rings.size > 50) rings.delete(rings.keys().next().value);
    rings.set(key, { id, sid, rate: new Ring(), flows: new Ring(), time: new Ring() });
    past(rings.get(key));
  }
  return rings.get(key);
}

// === Orders ===

async function actOn(groups, act) {
  const named = groups.map(([service, sids]) => [service, sids.map((sid) => model.backend(service, sid)?.[model.col.svname]).filter(Boolean)]);
  const all = named.flatMap(([, names]) => names);
  try {
    for (const [service, names] of named) await order(service, names, act);
    tell(done(act, all), "good");
    chosen.clear();
    await tick();
  } catch (error) {
    tell(error.message, "bad");
  }
}

async function weighOne(service, sid, weight) {
  await weighAll([[service, [sid]]], weight);
}

async function weighAll(groups, weight) {
  const all = groups.flatMap(([service, sids]) => sids.map((sid) => [service, model.backend(service, sid)])).filter(([, row]) => row);
  try {
    for (const [service, row] of all) await weigh(service, row[model.col.addr], weight);
    tell(done("weight", all.map(([, row]) => row[model.col.svname])), "good");
    chosen.clear();
    await tick();
  } catch (error) {
    tell(error.message, "bad");
  }
}

function showChosen() {
  const bar = at("chosen");
  const size = chosen.size;
  if (!bar.firstElementChild) {
    const groups = () => [...chosen.picked].map(([id, sids]) => [model.services.get(id), [...sids]]).filter(([service]) => service);
    const button = (act, word, kind) => el("button", { type: "button", class: kind, onclick: () => actOn(groups(), act) }, word);
    const weight = el("input", { type: "number", min: 0, max: 256, id: "weigh", required: true, placeholder: "0–256" });
    bar.append(
      el("strong", {}),
      button("drain", "Drain", "main"),
      button("maint", "Maintenance"),
      button("ready", "Ready"),
      el("form", { class: "weight", onsubmit: (event) => (event.preventDefault(), weighAll(groups(), weight.value)) }, el("label", { for: "weigh" }, "Weight"), weight, el("button", {}, "Set")),
      el("button", { type: "button", onclick: () => chosen.clear() }, "Clear"),
    );
  }
  say(bar.firstElementChild, size === 1 ? "1 server chosen" : `${size} servers chosen`);
  bar.hidden = size === 0;
  list.update(true);
}

// === What the reader does ===

function wire() {
  const wish = list.wish;
  at("q").addEventListener("input", (event) => {
    wish.text = event.target.value.trim().toLowerCase();
    arrange();
  });
  at("q").form.addEventListener("submit", (event) => event.preventDefault());
  wish.text = at("q").value.trim().toLowerCase();
  for (const [id, name] of [["only-problems", "problems"], ["hide-down", "up"], ["hide-maint", "maint"]]) {
    at(id).addEventListener("click", ({ currentTarget }) => {
      wish[name] = !wish[name];
      mark(currentTarget, "aria-pressed", wish[name]);
      arrange();
    });
  }
  at("sort").addEventListener("change", (event) => {
    wish.sort = event.target.value;
    arrange();
  });
  at("unfold").addEventListener("click", () => list.unfold(true));
  at("fold").addEventListener("click", () => list.unfold(false));
  at("columns").addEventListener("click", ({ currentTarget }) => {
    list.all = !list.all;
    mark(currentTarget, "aria-pressed", list.all);
    list.fit();
  });
  at("pause").addEventListener("click", ({ currentTarget }) => {
    paused = !paused;
    mark(currentTarget, "aria-pressed", paused);
    state();
    if (!paused) {
      tick();
      load();
    }
  });
  document.addEventListener("keydown", keys);
  document.addEventListener("visibilitychange", () => !document.hidden && !paused && tick());
  window.addEventListener("hashchange", () => {
    if (!model.seq) return;
    route();
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  });
  for (const node of document.querySelectorAll(".no-script")) node.remove();
  for (const node of document.querySelectorAll(".script")) node.hidden = false;
}

/** `/` searches, `j` and `k` go from service to service, Escape leaves. */
function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (chosen.size) chosen.clear();
    else if (typing) event.target.blur();
    else if (leaf) location.hash = "#/";
  } else if (typing) {
    return;
  } else if (event.key === "/" && !leaf) {
    event.preventDefault();
    at("q").focus();
  } else if ((event.key === "j" || event.key === "k") && !leaf) {
    const own = document.activeElement?.closest(".px");
    const next = own ? (event.key === "j" ? own.nextElementSibling : own.previousElementSibling) : list.box.firstElementChild;
    const section = next && list.sections.get(Number(next.dataset.id));
    section?.show(model);
    section?.fold.focus();
    next?.scrollIntoView({ block: "nearest" });
  }
}

wire();
tick();
