// The list of services: which are shown, in which order, and only those near the window with all their parts.

import { LEVELS, NARROW } from "./columns.js";
import { refused, words } from "./model.js";
import { Section, setSpans } from "./table.js";

/** Up to this many servers in all, every service is unfolded at first. */
const FEW = 60;
/** Rows that jump about cannot be read: this often, at most, the order changes, ms. */
const SETTLED = 4000;

const ORDERS = {
  name: (a, b) => a.px.localeCompare(b.px, "en", { numeric: true }),
  state: (a, b) => b.worst - a.worst,
  rate: (a, b, c) => (b.F[c.rate] ?? 0) - (a.F[c.rate] ?? 0),
  flows: (a, b, c) => (b.F[c.scur] ?? 0) - (a.F[c.scur] ?? 0),
  errors: (a, b, c) => errors(b, c) - errors(a, c),
  bytes: (a, b, c) => volume(b, c) - volume(a, c),
  handshake: (a, b, c) => (b.B[c.ctime] ?? -1) - (a.B[c.ctime] ?? -1),
};

const errors = (service, c) => refused(service, c) + (service.B[c.eresp] ?? 0);
const volume = ({ F }, c) => (F[c.bin] ?? 0) + (F[c.bout] ?? 0);

export class List {
  constructor(model, acts, chosen) {
    Object.assign(this, { model, acts, chosen });
    this.sections = new Map();
    this.wish = { text: "", problems: false, up: false, maint: false, sort: "name" };
    this.unfolded = null;
    this.folds = new Map();
    this.sorted = 0;
    this.box = document.createElement("div");
    this.box.addEventListener("fold", ({ detail }) => {
      this.folds.set(detail.id, detail.open);
      this.sections.get(detail.id)?.setOpen(detail.open);
      this.sections.get(detail.id)?.update(this.model, true);
    });
    this.near = new IntersectionObserver((seen) => this.see(seen), { rootMargin: "800px 0px" });
    this.watchWidth();
  }

  see(seen) {
    for (const { target, isIntersecting } of seen) {
      const section = this.sections.get(Number(target.dataset.id));
      if (!section) continue;
      if (isIntersecting) section.show(this.model);
      else section.hide();
    }
  }

  /** As many columns as the window has room for, or all. */
  watchWidth() {
    const queries = LEVELS.map(([query, level]) => [matchMedia(query), level]);
    this.fit = () => {
      const level = this.all ? 0 : (queries.find(([query]) => query.matches)?.[1] ?? NARROW);
      document.body.dataset.level = level;
      for (const table of this.box.querySelectorAll("table.px-t")) setSpans(table);
    };
    for (const [query] of queries) query.addEventListener("change", this.fit);
    this.fit();
  }

  isOpen(service) {
    return this.folds.get(service.id) ?? this.unfolded ?? this.few;
  }

  /** Folds or unfolds all. */
  unfold(open) {
    this.unfolded = open;
    this.folds.clear();
    for (const section of this.sections.values()) section.setOpen(this.isOpen(section.service));
    this.update(true);
  }

  matches(service) {
    const { text, problems, up, maint } = this.wish;
    if (problems && !service.worst) return false;
    const { status } = this.model.col;
    if (up && service.B[status] === "DOWN") return false;
    if (maint && service.S.length > 0 && service.S.every((row) => row[status] === "MAINT")) return false;
    return !text || text.split(/\s+/).every((word) => words(service, this.model.col).includes(word));
  }

  /** Puts the sections that are asked for in order; returns how many. */
  arrange() {
    const { model } = this;
    const { services } = model;
    let backends = 0;
    for (const service of services.values()) backends += service.S.length;
    this.few = backends <= FEW;
    for (const [id, section] of this.sections) {
      if (services.has(id)) continue;
      this.near.unobserve(section.node);
      section.node.remove();
      this.sections.delete(id);
    }
    const by = ORDERS[this.wish.sort];
    const shown = [...services.values()].filter((service) => this.matches(service));
    shown.sort((a, b) => by(a, b, model.col) || ORDERS.name(a, b));
    let at = this.box.firstElementChild;
    const stays = new Set(shown.map(({ id }) => id));
    for (const [id, section] of this.sections) {
      if (stays.has(id) || !section.node.isConnected) continue;
      if (section.node === at) at = at.nextElementSibling;
      this.near.unobserve(section.node);
      section.filled && section.hide();
      section.node.remove();
    }
    for (const service of shown) {
      let section = this.sections.get(service.id);
      if (!section) {
        section = new Section(service, this.acts, this.chosen);
        section.setOpen(this.isOpen(service));
        this.sections.set(service.id, section);
      }
      const fresh = section.node.parentNode !== this.box;
      if (section.node === at) at = at.nextElementSibling;
      else this.box.insertBefore(section.node, at);
      if (fresh) this.near.observe(section.node);
    }
    this.sorted = performance.now();
    return shown.length;
  }

  /** Shows the numbers of this moment in what is seen. */
  update(all) {
    for (const section of this.sections.values()) {
      if (section.filled) section.update(this.model, all);
    }
  }

  /** Whether what is shown depends on numbers or states, and may change without anybody losing a row from under the pointer. */
  mayMove() {
    const { sort, problems, up, maint } = this.wish;
    const still = !this.box.matches(":hover") && !this.box.contains(document.activeElement);
    return (sort !== "name" || problems || up || maint) && still && performance.now() - this.sorted > SETTLED;
  }
}
