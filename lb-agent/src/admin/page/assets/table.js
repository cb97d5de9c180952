// One service on the list: its head with small charts and, unfolded, its table.

import { draw, spark } from "./chart.js";
import { COLUMNS, GROUPS, SHORT, span } from "./columns.js";
import { stopped } from "./model.js";
import { ago, bytes, count, el, look, mark, millis, say, svg } from "./show.js";

/** Pixels of a folded head, and what a table adds; only guesses for what was never shown. */
const HEAD = 56;
const TABLE = 80;
const ROW = 28;

export class Section {
  /** `acts`: what the reader may do, see `orders.js`; `chosen`: which servers are picked. */
  constructor(service, acts, chosen) {
    this.service = service;
    this.acts = acts;
    this.chosen = chosen;
    this.open = false;
    this.filled = false;
    this.height = 0;
    this.node = el("section", { class: "px", "data-id": service.id });
    this.reserve();
  }

  /** Keeps the room of what is not shown. */
  reserve() {
    const rows = this.service.S.length + 2;
    const guess = HEAD + (this.open ? TABLE + rows * ROW : 0);
    this.node.style.height = `${this.height || guess}px`;
  }

  setOpen(open) {
    if (this.open === open) return;
    this.open = open;
    this.height = 0;
    this.node.classList.toggle("open", open);
    if (this.filled) {
      this.fillBody();
    } else this.reserve();
  }

  /** Builds what is seen. */
  show(model) {
    if (this.filled) return;
    this.filled = true;
    this.node.style.height = "";
    this.buildHead();
    this.fillBody();
    this.update(model, true);
    this.acts.past(this.service);
  }

  /** Forgets what cannot be seen any more. */
  hide() {
    if (!this.filled || this.node.contains(document.activeElement)) return;
    this.height = this.node.offsetHeight;
    this.filled = false;
    this.rows = null;
    this.node.replaceChildren();
    this.reserve();
  }

  buildHead() {
    const { service } = this;
    const id = `px-${service.id}`;
    this.fold = el(
      "button",
      { type: "button", class: "fold", "aria-controls": `${id}-t`, onclick: () => this.toggle() },
      svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("path", { d: "M3 1l4 4-4 4", fill: "none", stroke: "currentColor", "stroke-width": 1.8 })),
    );
    this.pill = el("span", { class: "pill" });
    const mini = (kind, word) => {
      const value = el("b");
      const chart = spark();
      return { value, chart, node: el("div", { class: `mini k-${kind}` }, value, el("small", {}, word), chart) };
    };
    this.rate = mini("rate", "new flows/s");
    this.flows = mini("flows", "active flows");
    this.time = mini("time", "handshake");
    this.sums = el("div", { class: "sums" });
    const at = service.addrs.map((addr) => (addr.includes(":") ? `[${addr}]:${service.port}` : `${addr}:${service.port}`));
    const rest = [service.proto, service.algo, service.check ? `check ${service.check}` : null].filter(Boolean);
    this.node.replaceChildren(
      el(
        "header",
        {},
        el(
          "div",
          { class: "who" },
          this.fold,
          el(
            "div",
            {},
            el("h2", { id }, el("a", { href: `#/service/${service.id}`, title: service.name ?? service.px }, service.px)),
            el("p", { title: `${at.join(", ")} ${rest.join(", ")}` }, `${at[0] ?? ""}${at.length > 1 ? ` +${at.length - 1}` : ""} · ${rest.join(" · ")}`),
          ),
        ),
        el("div", {}, this.pill),
        this.rate.node,
        this.flows.node,
        this.time.node,
        this.sums,
      ),
    );
    mark(this.node, "aria-labelledby", id);
  }

  toggle() {
    this.node.dispatchEvent(new CustomEvent("fold", { bubbles: true, detail: { id: this.service.id, open: !this.open } }));
  }

  fillBody() {
    mark(this.fold, "aria-expanded", this.open);
    mark(this.fold, "aria-label", `${this.open ? "Hide" : "Show"} the servers of ${this.service.px}`);
    this.table?.remove();
    this.rows = null;
    this.table = null;
    if (!this.open) return;
    this.table = buildTable(`px-${this.service.id}-t`, this.service.px);
    this.node.append(this.table);
    this.rows = new Map();
  }

  /** Shows the numbers of this moment; `all`: also those that did not change. */
  update(model, all) {
    if (!this.filled) return;
    const { service } = this;
    const { col } = model;
    const { F, B, S } = service;
    const up = S.filter((row) => row[col.weight] > 0 && row[col.status].startsWith("UP")).length;
    const word = service.failopen ? "fail-open" : stopped(service, col) ? F[col.status] : B[col.status];
    say(this.pill, `${word} ${up}/${S.length}`);
    mark(this.pill, "data-s", service.worst === 2 ? "down" : service.worst === 1 ? "maint" : up < S.length ? "drain" : "up");
    for (const [mini, value] of [
      [this.rate, count(F[col.rate] ?? 0)],
      [this.flows, count(F[col.scur] ?? 0)],
      [this.time, millis(B[col.ctime])],
    ]) {
      say(mini.value, value);
    }
    draw(this.rate.chart, service.rate);
    draw(this.flows.chart, service.flows);
    draw(this.time.chart, service.time);
    say(this.sums, `in ${bytes(F[col.bin]) || "?"} · out ${bytes(F[col.bout]) || "?"}`);
    if (this.rows) this.updateRows(model, all);
  }

  updateRows(model, all) {
    const { service } = this;
    const { col } = model;
    const wanted = [["F", service.F], ...service.S.map((row) => [row[col.sid], row]), ["B", service.B]];
    const body = this.table.tBodies[0];
    const stays = new Set(wanted.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (stays.has(key)) continue;
      row.node.remove();
      this.rows.delete(key);
    }
    let before = body.firstElementChild;
    for (const [key, values] of wanted) {
      let row = this.rows.get(key);
      if (!row) {
        row = this.buildRow(key, values, model);
        this.rows.set(key, row);
      }
      if (row.node === before) before = before.nextElementSibling;
      else body.insertBefore(row.node, before);
      updateRow(row, values, model, all);
      if (row.pick) {
        const picked = this.chosen.has(service.id, values[col.sid]);
        if (row.pick.checked !== picked) row.pick.checked = picked;
      }
      if (row.act) {
        const out = ["DRAIN", "MAINT"].includes(values[col.status]);
        say(row.act, out ? "Ready" : "Drain");
        mark(row.act, "aria-label", `${out ? "Bring back" : "Drain"} ${values[col.svname]} of ${service.px}`);
        mark(row.act, "data-act", out ? "ready" : "drain");
      }
    }
  }

  buildRow(key, values, model) {
    const { service } = this;
    const { col } = model;
    const server = key !== "F" && key !== "B";
    const name = el("th", { scope: "row", class: "name" });
    const row = { node: el("tr", { class: server ? "sv" : key === "F" ? "fe" : "be" }, name), cells: [], server, kind: server ? "S" : key };
    if (server) {
      const [sid, sv] = [values[col.sid], values[col.svname]];
      row.pick = el("input", { type: "checkbox", "aria-label": `Choose ${sv}`, onchange: (event) => this.chosen.set(service.id, sid, event.target.checked) });
      const pick = model.admin ? el("label", {}, row.pick) : null;
      name.append(...[pick, el("a", { href: `#/backend/${service.id}/${sid}` }, sv)].filter(Boolean));
    } else name.append(key === "F" ? "Frontend" : "Backend");
    row.node.dataset.sv = values[col.svname];
    for (const column of COLUMNS) {
      const cell = el("td", { class: column.classes });
      if (column[row.kind] === "status") {
        row.age = el("i");
        row.pill = el("span", { class: "pill" });
        cell.append(row.age, row.pill);
      }
      row.cells.push(cell);
      row.node.append(cell);
    }
    const last = el("td", { class: "act-cell" });
    if (server && model.admin) {
      row.act = el("button", { type: "button", onclick: () => this.acts.one(service, values[col.sid], row.act.dataset.act) });
      last.append(row.act);
    }
    row.node.append(last);
    return row;
  }
}

function updateRow(row, values, { col, now }, all) {
  const status = values[col.status];
  if (row.status !== status || all) {
    row.status = status;
    say(row.pill, status);
    mark(row.node, "data-s", look(status));
  }
  mark(row.pill, "title", values[col.why] ?? null);
  const age = values[col.since] == null ? null : ago((now - values[col.since]) / 1000);
  say(row.age, age ?? "");
  COLUMNS.forEach((column, at) => {
    const shown = column[row.kind];
    if (shown === "status") return;
    const text = shown(values, col, now);
    const cell = row.cells[at];
    say(cell, text ?? "");
    if (column.hot) cell.classList.toggle("hot", text != null && text !== 0 && text !== "0");
  });
}

function buildTable(id, name) {
  const groups = el("tr", { class: "grp-row" }, el("td", { class: "name" }));
  GROUPS.forEach(([word], at) => groups.append(el("th", { class: "grp first", scope: "colgroup", "data-group": at }, word)));
  groups.append(el("td", { class: "act-cell" }));
  const words = el("tr", {}, el("th", { class: "name", scope: "col" }, "Name"));
  for (const { classes, word, short, meaning } of COLUMNS) {
    const alone = SHORT.get(short);
    const text = alone ? [el("span", { class: "long" }, word), el("span", { class: "short" }, alone)] : [word];
    words.append(el("th", { class: classes, scope: "col", title: meaning }, ...text));
  }
  words.append(el("th", { class: "act-cell", scope: "col" }, el("span", { class: "unseen" }, "Act")));
  const cols = COLUMNS.map(({ col }) => el("col", { class: col }));
  const table = el(
    "table",
    { class: "px-t", id },
    el("caption", { class: "unseen" }, `Servers of ${name}`),
    el("colgroup", {}, el("col", { class: "name" }), ...cols, el("col", { class: "act-cell" })),
    el("thead", {}, groups, words),
    el("tbody"),
  );
  setSpans(table);
  return table;
}

/** Lets each group's head span the columns that this window shows. */
export function setSpans(table) {
  const level = Number(document.body.dataset.level ?? 0);
  for (const head of table.querySelectorAll("[data-group]")) {
    const shown = span(GROUPS[head.dataset.group][1], level);
    mark(head, "colspan", Math.max(1, shown));
    head.hidden = shown === 0;
  }
}
