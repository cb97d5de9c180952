// Where the agent learns of services, and what else an operator should look at.

import { clock, count, el } from "./show.js";

/** Counters that are older are not read any more, ms. */
const STALE = 60_000;

const time = (moment) => new Date(moment).toLocaleTimeString();

/** What keeps the agent from knowing how things are, as sentences; nothing if all is well. */
export function trouble({ about, agent, now }) {
  const failing = about.sources.filter(({ error }) => error);
  const said = failing.slice(0, 2).map(({ id, error, read }) => {
    const stays = read == null ? "Nothing is known from there yet." : `What it said at ${time(read)} stays in force.`;
    return `${id} cannot be read: ${error}. ${stays}`;
  });
  if (failing.length > said.length) said.push(`Nor can ${count(failing.length - said.length)} more: see Events.`);
  if (agent.age > STALE) said.unshift(`The counters have not been read since ${time(now)}: the log says why.`);
  return said.join(" ");
}

/** A table of the sources, and the warnings. */
export function sources(model) {
  const words = ["Source", "State", "Last read", "VIPs", "Left out", "Why"];
  const body = el("tbody");
  const table = el(
    "table",
    { class: "plain" },
    el("caption", { class: "unseen" }, "Sources"),
    el("thead", {}, el("tr", {}, ...words.map((word, at) => el("th", { scope: "col", class: at === 3 || at === 4 ? "num" : null }, word)))),
    body,
  );
  const list = el("ul", { class: "warnings" });
  const none = el("p", {}, "There are none.");
  const nodes = [
    el("section", { class: "card" }, el("h2", {}, "Sources"), el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Sources" }, table)),
    el("section", { class: "card" }, el("h2", {}, "Warnings"), list, none),
  ];
  let seen = null;
  const update = () => {
    const { about } = model;
    if (about === seen) return;
    seen = about;
    body.replaceChildren(...about.sources.map(line));
    list.replaceChildren(...about.warnings.map((text) => el("li", {}, text)));
    if (about.more) list.append(el("li", {}, `${count(about.more)} more: \`lb-agent status\` has them all`));
    list.hidden = !list.firstChild;
    none.hidden = !list.hidden;
  };
  return { nodes, update };
}

function line({ id, read, error, vips, left_out }) {
  const [look, word] = error ? ["down", "fails"] : read == null ? ["wait", "not read yet"] : ["up", "read"];
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, id),
    el("td", {}, el("span", { class: "pill", "data-s": look }, word)),
    el("td", {}, read == null ? "" : clock(read)),
    el("td", { class: "num" }, count(vips)),
    el("td", { class: "num" }, count(left_out)),
    el("td", {}, error ?? ""),
  );
}
