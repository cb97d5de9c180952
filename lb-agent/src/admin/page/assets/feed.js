// What is asked of the agent, and the shape in which it comes.

import { Refused } from "./orders.js";

/** What changed since `seq`; a function that reads it, so that who measures can measure that, too. */
export async function ask(seq) {
  const text = await get(`/v1/live?since=${seq}`);
  return () => JSON.parse(text);
}

/** Changes of state, as far back as the agent remembers. */
export async function askEvents() {
  const { events } = JSON.parse(await get("/v1/events"));
  return events.map(({ at, what, service, backend, from, to, reason }) => ({ at, service, backend, was: from, is: to ?? what, why: reason }));
}

/** The last two minutes of one service, or of its backend `sid`, by the second. */
export async function askHistory({ id, sid }) {
  const backend = sid == null ? "" : `&backend=${sid}`;
  const { points } = JSON.parse(await get(`/v1/history?service=${id}${backend}`));
  return {
    rate: points.map((point) => point.rate),
    flows: points.map((point) => point.active),
    time: points.map((point) => (point.connect_us == null ? NaN : point.connect_us / 1000)),
  };
}

async function get(url) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", credentials: "same-origin" });
  } catch {
    throw new Refused("The agent does not answer.");
  }
  if (answer.status === 401) throw new Refused("Log in to see this page: the agent asks for a name and password.");
  if (!answer.ok) throw new Refused(`The agent answered ${answer.status}.`);
  try {
    return await answer.text();
  } catch {
    throw new Refused("The agent stopped in the middle of an answer.");
  }
}
