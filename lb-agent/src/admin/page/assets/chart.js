// Small charts as SVG paths.

import { mark, svg } from "./show.js";

const W = 100;
const H = 28;
const YOUNG = 30;

/** An empty chart; `draw` fills it. It says nothing to a screen reader, its numbers stand beside it. */
export function spark() {
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "area" }),
    svg("path", { class: "line" }),
  );
}

/** Draws a ring; what is not known leaves a gap. */
export function draw(chart, ring) {
  const values = ring.list();
  // A young line may take the whole width, so long as it is half a minute.
  const known = values.findIndex((value) => !Number.isNaN(value));
  values.splice(0, known < 0 ? 0 : Math.min(known, values.length - YOUNG));
  let most = 0;
  for (const value of values) if (value > most) most = value;
  const scale = most > 0 ? (H - 3) / most : 0;
  let line = "";
  let area = "";
  let from = -1;
  for (let at = 0; at <= values.length; at += 1) {
    const here = at < values.length && !Number.isNaN(values[at]);
    if (here) {
      const point = `${round((at * W) / (values.length - 1))} ${round(H - 1 - values[at] * scale)}`;
      line += `${from < 0 ? "M" : "L"}${point}`;
      if (from < 0) {
        from = at;
        area += `M${round((at * W) / (values.length - 1))} ${H}`;
      }
      area += `L${point}`;
    } else if (from >= 0) {
      area += `L${round(((at - 1) * W) / (values.length - 1))} ${H}Z`;
      from = -1;
    }
  }
  mark(chart.firstChild, "d", area);
  mark(chart.lastChild, "d", line);
  return most;
}

/** The wanted share of new flows against the one that came, 0 to 1 each. */
export function share() {
  return svg(
    "svg",
    { class: "share", viewBox: "0 0 100 16", preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("rect", { class: "ground", width: 100, height: 16 }),
    svg("rect", { class: "want", height: 16 }),
    svg("rect", { class: "got", y: 4, height: 8 }),
  );
}

/** `most`: the share that fills the whole width. */
export function drawShare(chart, want, got, most) {
  const [, wanted, came] = chart.children;
  mark(wanted, "width", round((100 * want) / most));
  mark(came, "width", round((100 * (got ?? 0)) / most));
}

function round(value) {
  return Math.round(value * 100) / 100;
}
