// What the agent told, kept up to date by its feed: only services that changed come over the line.

/** Seconds that the small charts cover. */
export const SPAN = 150;

/** One line of numbers over time, newest last. */
export class Ring {
  constructor() {
    this.values = new Float64Array(SPAN).fill(NaN);
    this.next = 0;
  }

  push(value) {
    this.values[this.next] = value ?? NaN;
    this.next = (this.next + 1) % SPAN;
  }

  /** Puts older values before those that are here; both by the second. */
  precede(older) {
    const own = this.list();
    const known = own.findIndex((value) => !Number.isNaN(value));
    const tail = known < 0 ? [] : own.slice(known);
    const all = [...older.slice(0, Math.max(0, older.length - tail.length)), ...tail].slice(-SPAN);
    this.values.fill(NaN);
    all.forEach((value, at) => (this.values[SPAN - all.length + at] = value ?? NaN));
    this.next = 0;
  }

  list() {
    return [...this.values.subarray(this.next), ...this.values.subarray(0, this.next)];
  }
}

export class Model {
  constructor() {
    this.seq = 0;
    this.now = 0;
    this.agent = null;
    this.admin = false;
    this.col = {};
    this.order = [];
    this.services = new Map();
    this.sums = { rate: new Ring(), flows: new Ring(), in: new Ring(), out: new Ring() };
    this.total = null;
    this.about = { sources: [], warnings: [], more: 0 };
  }

  /** Takes an answer of the feed; returns whether services came or went. */
  take(answer) {
    const before = this.now;
    this.now = answer.now;
    this.seq = answer.seq;
    this.agent = answer.agent;
    this.admin = answer.admin;
    this.about = answer.about ?? this.about;
    answer.cols.forEach((name, at) => (this.col[name] = at));
    for (const told of answer.services) {
      const known = this.services.get(told.id);
      const service = Object.assign(known ?? fresh(told.id), told);
      service.words = null;
      service.worst = worst(service, this.col);
      if (!known) this.services.set(told.id, service);
    }
    if (answer.order) {
      this.order = answer.order;
      const stays = new Set(answer.order);
      for (const id of this.services.keys()) if (!stays.has(id)) this.services.delete(id);
    }
    this.sum((this.now - before) / 1000);
    return Boolean(answer.order);
  }

  sum(seconds) {
    const { rate, scur, bin, bout, ctime, weight, status } = this.col;
    const total = { rate: 0, flows: 0, in: 0, out: 0, refused: 0, services: 0, troubled: 0, backends: 0, up: 0 };
    for (const service of this.services.values()) {
      const { F, B, S } = service;
      total.services += 1;
      if (service.worst) total.troubled += 1;
      total.backends += S.length;
      for (const row of S) if (row[weight] > 0 && row[status].startsWith("UP")) total.up += 1;
      total.rate += F[rate] ?? 0;
      total.flows += F[scur] ?? 0;
      total.in += F[bin] ?? 0;
      total.out += F[bout] ?? 0;
      total.refused += refused(service, this.col);
      service.rate.push(F[rate]);
      service.flows.push(F[scur]);
      service.time.push(B[ctime]);
    }
    const past = this.total;
    const speed = (name) => (past && seconds > 0 ? Math.max(0, (total[name] - past[name]) / seconds) : null);
    total.inSpeed = speed("in");
    total.outSpeed = speed("out");
    this.total = total;
    this.sums.rate.push(total.rate);
    this.sums.flows.push(total.flows);
    this.sums.in.push(total.inSpeed);
    this.sums.out.push(total.outSpeed);
  }

  /** A service's backend by its place in the pool. */
  backend(service, sid) {
    return service?.S.find((row) => row[this.col.sid] === sid);
  }
}

function fresh(id) {
  return { id, rate: new Ring(), flows: new Ring(), time: new Ring(), asked: false };
}

/** What the search looks through; worked out when somebody searches. */
export function words(service, col) {
  if (service.words) return service.words;
  const rows = service.S.map((row) => `${row[col.svname]} ${row[col.addr]} ${row[col.task] ?? ""}`);
  const own = `${service.px} ${service.name ?? ""} ${service.addrs.join(" ")} ${service.port} ${service.proto}`;
  service.words = `${own} ${rows.join(" ")}`.toLowerCase();
  return service.words;
}

/** Flows that nobody served: not allowed, beyond a limit, lost as a table was full, or refused by backends. */
export function refused({ F, B }, { dreq, dcon, eint, econ }) {
  return [F[dreq], F[dcon], F[eint], B[econ]].reduce((sum, value) => sum + (value ?? 0), 0);
}

/** Whether the operator lets it take no new flows. */
export function stopped(service, col) {
  return service.F[col.status] === "STOP";
}

/** 0: nothing to look at, 1: some backend is in trouble, 2: nobody answers. */
function worst(service, col) {
  const status = service.B[col.status];
  if (service.failopen || stopped(service, col) || !status.startsWith("UP")) return 2;
  const troubled = service.S.some((row) => row[col.status].startsWith("DOWN") || row[col.status].includes("/"));
  return troubled ? 1 : 0;
}
