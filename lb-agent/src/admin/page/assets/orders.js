// What a reader may do with backends, and what the agent answered.

/** What happens, in words, when it is done. */
const DONE = { drain: "drained", ready: "brought back", maint: "taken out for maintenance", weight: "weighed anew" };

/** What the agent says after a form was sent: the code behind `;st=`. */
const CODES = {
  PART: "Only some of them are known any more; the rest is done.",
  NONE: "Nothing was chosen.",
  ERRP: "The agent does not know this service, server or action any more.",
  EXCD: "Too many servers at once: choose fewer.",
  DENY: "This listener takes no orders: the agent runs without --admin-token-file and --admin-users-file.",
  UNKN: "The agent could not do it; its log says why.",
};

export class Refused extends Error {}

/** Sends `act` (drain, ready, maint) for servers of one service, as the form of HAProxy's page does. */
export async function order(service, names, act) {
  const body = new URLSearchParams([...names.map((name) => ["s", name]), ["action", act], ["b", `#${service.id}`]]);
  const answer = await send("/haproxy?stats", { body });
  const code = /;st=(\w+)/.exec(answer.url)?.[1];
  if (code && code !== "DONE") throw new Refused(CODES[code] ?? `The agent answered ${code}.`);
}

/** Gives one server a weight, 0 to 256. */
export async function weigh(service, addr, weight) {
  const [at] = service.addrs;
  const host = service.name ?? (at.includes(":") ? `[${at}]` : at);
  const name = `${host}:${service.port}/${service.proto}`;
  const query = new URLSearchParams({ backend: addr, weight, service: name });
  await send(`/v1/weight?${query}`, {});
}

async function send(url, options) {
  let answer;
  try {
    answer = await fetch(url, { method: "POST", cache: "no-store", credentials: "same-origin", ...options });
  } catch {
    throw new Refused("The agent cannot be reached.");
  }
  if (answer.status === 401) throw new Refused("Log in first: this needs a name and password that the agent knows.");
  if (answer.status === 403) {
    throw new Refused(`The agent refused: ${(await answer.text()).trim() || "this listener takes no orders"}`);
  }
  if (!answer.ok) throw new Refused((await answer.text()).trim() || `The agent answered ${answer.status}.`);
  return answer;
}

/** What was done, as a sentence. */
export function done(act, names) {
  return `${names.length === 1 ? names[0] : `${names.length} servers`} ${DONE[act]}.`;
}

/** Servers that are ticked, by service and place in the pool. */
export class Chosen {
  constructor(changed) {
    this.changed = changed;
    this.picked = new Map();
  }

  has(service, sid) {
    return this.picked.get(service)?.has(sid) ?? false;
  }

  set(service, sid, on) {
    const picked = this.picked.get(service) ?? new Set();
    if (on) picked.add(sid);
    else picked.delete(sid);
    if (picked.size) this.picked.set(service, picked);
    else this.picked.delete(service);
    this.changed();
  }

  /** Forgets those that are not there any more. */
  keep(there) {
    let gone = false;
    for (const [service, picked] of this.picked) {
      for (const sid of picked) if (!there(service, sid)) gone = picked.delete(sid);
      if (!picked.size) this.picked.delete(service);
    }
    if (gone) this.changed();
  }

  clear() {
    this.picked.clear();
    this.changed();
  }

  get size() {
    let size = 0;
    for (const picked of this.picked.values()) size += picked.size;
    return size;
  }
}
