// The columns of a service's table: HAProxy's groups and words, and what stands in a cell of each kind of row.

import { ago, brief, bytes, count } from "./show.js";

/** `nil`: there is no such thing, `zero`: always none. */
const nil = () => null;
const zero = () => 0;

const of = (name, show = count) => (row, col) => show(row[col[name]]);
const text = (name) => (row, col) => row[col[name]];
const since = (name) => (row, col, now) => (row[col[name]] == null ? null : ago((now - row[col[name]]) / 1000));

/** Groups in HAProxy's order. A column: the level from which it is left out (0: never), word, width, what it means,
    then Frontend, server, Backend. */
export const GROUPS = [
  ["Queue", [
    [1, "Cur", "n2", "Nothing ever waits in a queue", nil, zero, zero],
    [1, "Max", "n2", "Nothing ever waits in a queue", nil, zero, zero],
    [1, "Limit", "n2", "There is no queue", nil, nil, nil],
  ]],
  ["Session rate", [
    [0, "Cur", "n3", "New flows in the last second", of("rate"), of("rate"), of("rate")],
    [2, "Max", "n3", "Most new flows in one second", of("rate_max"), of("rate_max"), of("rate_max")],
    [1, "Limit", "n3", "Most new flows that are let through in a second", of("rate_lim"), nil, nil],
  ]],
  ["Sessions", [
    [0, "Cur", "n4", "Flows at present", of("scur", brief), of("scur", brief), of("scur", brief)],
    [2, "Max", "n4", "Most flows at a time", of("smax", brief), of("smax", brief), of("smax", brief)],
    [1, "Limit", "n4", "Most flows that are let through", of("slim", brief), of("slim", brief), of("slim", brief)],
    [3, "Total", "n5", "Flows ever", of("stot", brief), of("stot", brief), of("stot", brief)],
    [1, "LbTot", "n5", "Times chosen for a new flow", nil, of("lbtot", brief), of("lbtot", brief)],
    [3, "Last", "n4", "Since the last new flow", nil, since("last"), since("last")],
  ]],
  ["Bytes", [
    [4, "In", "n5", "From clients; empty where local processes use UDP", of("bin", bytes), of("bin", bytes), of("bin", bytes)],
    [4, "Out", "n5", "To clients; empty where replies bypass this node", of("bout", bytes), of("bout", bytes), of("bout", bytes)],
  ]],
  ["Denied", [
    [2, "Req", "n4", "Flows from sources that are not allowed", of("dreq", brief), nil, of("dreq", brief)],
    [1, "Resp", "n3", "There is no such thing", zero, zero, zero],
  ]],
  ["Errors", [
    [2, "Req", "n3", "Malformed packets", of("ereq", brief), nil, nil],
    [4, "Conn", "n3", "First packets that were refused or not answered", nil, of("econ", brief), of("econ", brief)],
    [3, "Resp", "n3", "Flows that the backend reset", nil, of("eresp", brief), of("eresp", brief)],
  ]],
  ["Warnings", [
    [1, "Retr", "n3", "SYNs that were sent again", nil, of("wretr", brief), of("wretr", brief)],
    [1, "Redis", "n3", "Flows that were given another backend", nil, of("wredis", brief), of("wredis", brief)],
  ]],
  ["Server", [
    [0, "Status", "status", "Time in this state, and the state", "status", "status", "status"],
    [2, "LastChk", "check", "Result of the last check", nil, text("check"), nil],
    [0, "Wght", "n4", "Weight in force / as configured", nil, weight, weight],
    [2, "Act", "n2", "Active servers", nil, yes("act"), of("act")],
    [2, "Bck", "n2", "Backup servers", nil, yes("bck"), of("bck")],
    [3, "Chk", "n2", "Failed checks", nil, of("chkfail", brief), nil],
    [3, "Dwn", "n2", "Times it went down", nil, of("chkdown", brief), of("chkdown", brief)],
    [2, "Dwntme", "n5", "Time that it was not up", nil, of("downtime", ago), of("downtime", ago)],
    [1, "Thrtle", "n3", "Slow start", nil, (row, col) => (row[col.throttle] == null ? null : `${row[col.throttle]}%`), nil],
  ]],
];

function weight(row, col) {
  return `${row[col.weight]}/${row[col.uweight]}`;
}

function yes(name) {
  return (row, col) => (row[col[name]] ? "Y" : "-");
}

/** Which columns are left out on narrower windows: those whose first entry is 1 to this. */
export const LEVELS = [
  ["(min-width: 1870px)", 0],
  ["(min-width: 1420px)", 1],
  ["(min-width: 970px)", 2],
  ["(min-width: 640px)", 3],
];
export const NARROW = 4;

/** Every column: its classes, head, and what shows a Frontend's, a server's and a Backend's cell. */
export const COLUMNS = GROUPS.flatMap(([group, columns]) =>
  columns.map(([drop, word, width, meaning, F, S, B], at) => {
    const classes = [drop ? `d${drop}` : "", at === 0 ? "first" : "", width.startsWith("n") ? "" : width];
    return {
      drop,
      word,
      short: `${group} ${word}`,
      meaning,
      F,
      S,
      B,
      classes: classes.filter(Boolean).join(" "),
      col: [width, drop ? `d${drop}` : ""].filter(Boolean).join(" "),
      hot: group === "Errors" || group === "Denied",
    };
  }),
);

/** Words that stand alone, where there is no room for the groups. */
export const SHORT = new Map([["Session rate Cur", "Rate"], ["Sessions Cur", "Flows"], ["Server Wght", "Weight"]]);

/** How many columns of a group a window of this level shows. */
export function span(columns, level) {
  return columns.filter(([drop]) => drop === 0 || drop > level).length;
}
