"use strict";
// The live page: it follows /api/stream and draws. All texts enter the page as text, never as markup.
const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const chosen = { model: query.get("model"), version: query.get("version"), hours: query.get("hours") || "24" };
let state = null, source = null, drawn = "", known = null, oldest = null, passing = false;
const isAdmin = $("main").dataset.role === "admin";

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "circle", "text", "title", "polygon"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
const percent = (x, digits = 2) => `${(100 * x).toFixed(digits)}%`;
const figure = (x) => String(Number(Number(x).toPrecision(3)));
const count = (x) => Number(x).toLocaleString("en");
function when(seconds, long = true) {
  const date = new Date(1000 * seconds), two = (n) => String(n).padStart(2, "0");
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return long ? `${day} ${clock}:${two(date.getSeconds())}` : clock;
}

// -- connection ---------------------------------------------------------------------------------------------------

function address(path) {
  const parameters = new URLSearchParams({ hours: chosen.hours });
  for (const name of ["model", "version"]) if (chosen[name]) parameters.set(name, chosen[name]);
  return `${path}?${parameters}`;
}
function follow() {
  if (source) source.close();
  drawn = "";
  const here = new URLSearchParams();
  for (const name of ["model", "version"]) if (chosen[name]) here.set(name, chosen[name]);
  if (chosen.hours !== "24") here.set("hours", chosen.hours);
  history.replaceState(null, "", here.size ? `/?${here}` : "/");
  for (const button of document.querySelectorAll("#window button"))
    button.setAttribute("aria-pressed", String(button.dataset.hours === chosen.hours));
  source = new EventSource(address("/api/stream"));
  source.onmessage = (event) => {
    state = JSON.parse(event.data);
    if (state.store) problem(`The store cannot be used: ${state.store}`, true);
    else if (passing) solved();
    live(true);
    draw();
  };
  source.addEventListener("problem", (event) => { problem(JSON.parse(event.data), true); });
  source.onerror = async () => {
    live(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(retry, 2000);
  };
}
async function retry() {
  try {
    const answer = await fetch(address("/api/overview"));
    if (answer.status === 401) { location.href = `/login?next=${encodeURIComponent(address("/"))}`; return; }
    if (answer.status === 404 && (chosen.model || chosen.version)) { chosen.model = chosen.version = null; }
    else if (!answer.ok) problem((await answer.json()).error, true);
  } catch { /* the service is away; the next try may work */ }
  follow();
}
function live(on) {
  $("live").textContent = on ? `Live, ${when(state.time, false)}` : "No connection; trying again…";
}
// The next state ends a problem that is `ends`; the others, of what somebody did, stay until the next action works.
function problem(text, ends = false) {
  passing = ends;
  if ($("problem").hidden || $("problem").textContent !== text) $("problem").textContent = text;  // said aloud once
  $("problem").hidden = false;
}
function solved() { $("problem").hidden = true; }

// -- drawing --------------------------------------------------------------------------------------------------------

function draw() {
  const { time, since, waiting, ...rest } = state;
  const key = JSON.stringify(rest);
  if (key === drawn) return;
  drawn = key;
  drawModels();
  const nothing = state.rows === 0 && state.p_values.rows === 0;
  $("empty").hidden = !nothing;
  if (nothing) $("curl").textContent = example();
  drawTiles(); drawAlerts(); drawRate(); drawDrift(); drawPValues(); drawAlarms(); drawVersions();
}
function example() {
  const model = state.model, url = location.origin;
  const token = document.querySelector("form[action='/logout']") ? ` \\\n  -H "Authorization: Bearer $TOKEN"` : "";
  const target = `'${url}/score?model=${encodeURIComponent(model.name)}'`;
  if (model.reads === "images") return `curl ${target}${token} \\\n  -H 'content-type: image/png' --data-binary @image.png`;
  const row = Object.fromEntries(model.columns.map((name) => [name, null]));
  const body = JSON.stringify({ rows: [row] }).replaceAll("'", "\\u0027");
  return `curl ${target}${token} \\\n  -H 'content-type: application/json' \\\n  -d '${body}'`;
}
function drawModels() {
  const options = [];
  for (const entry of state.versions.filter((v) => v.loaded))
    options.push({ value: JSON.stringify([entry.name, entry.active ? null : entry.version]),
      text: entry.active ? `${entry.name}` : `${entry.name}, version ${entry.version}` });
  const selected = JSON.stringify([state.model.name, state.model.active ? null : state.model.version]);
  const select = $("model");
  if (document.activeElement !== select || select.options.length !== options.length)
    select.replaceChildren(...options.map((o) => make("option", { value: o.value }, o.text)));
  select.value = selected;
  document.title = `${state.alarm_count} alarms – ${state.model.name} – pushforward`;
}
function tile(name, value, note, bad) {
  return make("div", { class: bad ? "tile bad" : "tile" }, make("span", { class: "quiet" }, name), make("b", {}, value),
    make("span", { class: "quiet" }, note));
}
function drawTiles() {
  const s = state, rate = s.rows ? s.alarm_count / s.rows : 0, high = s.rows > 0 && rate > s.band[1];
  const drift = s.drift, alarmed = drift && drift.alarm_at;
  $("tiles").replaceChildren(
    tile("Rows", count(s.rows), `version ${s.model.version} of ${s.model.name}`, false),
    tile("Alarms", count(s.alarm_count), s.rows ? `${percent(rate)} of the rows` : "no rows", false),
    tile("Promised rate", percent(s.model.alpha),
      s.rows ? (high ? `more than theory gives (${percent(s.band[1])})` : `within the band up to ${percent(s.band[1])}`) : "at most, for normal rows", high),
    tile("Drift", drift ? (alarmed ? "Alarm" : "Quiet") : "–",
      drift ? (alarmed ? `since ${when(drift.alarm_at)}` : `log evidence ${figure(drift.log_evidence)} of ${figure(drift.bound)}`) : "no monitor yet", alarmed),
  );
}
function drawAlerts() {
  $("alerts").hidden = state.alerts.length === 0;
  $("alerts").querySelector("ul").replaceChildren(...state.alerts.map((alert) => make("li", {},
    make("b", {}, alert.labels.alertname), `${alert.labels.model_name ? " " + alert.labels.model_name : ""}: ${alert.annotations.summary} `,
    make("span", { class: "quiet" }, alert.starts ? `since ${when(alert.starts)}` : ""))));
}

const W = 560, H = 220, LEFT = 52, BOTTOM = 26, TOP = 12;
function frame(width, label, x0, x1, top, format, bottom = 0) {
  const x = (v) => LEFT + (v - x0) / (x1 - x0 || 1) * (width - LEFT - 8);
  const y = (v) => H - BOTTOM - (v - bottom) / (top - bottom || 1) * (H - BOTTOM - TOP);
  const svg = make("svg", { viewBox: `0 0 ${width} ${H}`, role: "img", "aria-label": label });
  const raw = (top - bottom) / 4 || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= 0.999 * raw);
  for (let k = Math.ceil(bottom / step); k * step <= top; k++) {
    const v = k * step;
    svg.append(make("line", { class: "axis", x1: LEFT, x2: width - 8, y1: y(v), y2: y(v) }),
      make("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, format(v)));
  }
  return { svg, x, y };
}
function timeAxis(plot, width, x0, x1) {
  const units = [60, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000];
  const step = units.find((unit) => (x1 - x0) / unit <= (width < 500 ? 4 : 8)) || 2592000;
  const zone = 60 * new Date(1000 * x1).getTimezoneOffset();
  for (let t = Math.ceil((x0 - zone) / step) * step + zone; t <= x1; t += step) {
    const date = new Date(1000 * t), x = plot.x(t);
    const text = step >= 86400 ? `${date.getMonth() + 1}/${date.getDate()}` : when(t, false);
    plot.svg.append(make("line", { class: "axis", x1: x, x2: x, y1: H - BOTTOM, y2: H - BOTTOM + 4 }),
      make("text", { x, y: H - 6, "text-anchor": x < LEFT + 16 ? "start" : x > width - 24 ? "end" : "middle" }, text));
  }
}
function asTable(title, names, rows) {
  return make("details", {}, make("summary", {}, title), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    make("table", {}, make("thead", {}, make("tr", {}, ...names.map((n) => make("th", { scope: "col" }, n)))),
      make("tbody", {}, ...rows.map((r) => make("tr", {}, ...r.map((c) => make("td", {}, c))))))));
}
function put(place, svg, table) {
  const open = place.querySelector("details")?.open;
  place.replaceChildren(svg, table);
  table.open = Boolean(open);
}
function drawRate() {
  const place = $("rate"), width = Math.max(320, Math.min(1180, place.clientWidth || 1000));
  const bars = state.bars, step = state.bar_seconds;
  const x0 = Math.floor(state.since / step) * step, x1 = Math.ceil(state.time / step) * step;
  const top = Math.min(1, 1.15 * Math.max(2 * state.model.alpha, ...bars.map((b) => Math.max(b.alarms / b.rows, Math.min(b.high, 0.5)))));
  const outside = bars.filter((b) => b.alarms / b.rows > b.high).length;
  const label = `Fraction of alarms over time: ${bars.length} bars, ${outside} above the band; promised rate ${percent(state.model.alpha)}.`;
  const plot = frame(width, label, x0, x1, top, (v) => `${figure(100 * v)}%`);
  for (const b of bars) {
    const left = plot.x(b.start), w = Math.max(1, plot.x(b.start + step) - left);
    const y0 = plot.y(Math.min(b.high, top)), y1 = plot.y(b.low);
    plot.svg.append(make("rect", { class: "band", x: left, width: w, y: y0, height: Math.max(0, y1 - y0) }));
  }
  plot.svg.append(make("line", { class: "promise", x1: LEFT, x2: width - 8, y1: plot.y(state.model.alpha), y2: plot.y(state.model.alpha) }));
  let path = "", before = null;
  for (const b of bars) {
    const at = [plot.x(b.start + step / 2), plot.y(b.alarms / b.rows)];
    path += `${before !== null && b.start - before <= 1.01 * step ? "L" : "M"}${at[0].toFixed(1)} ${at[1].toFixed(1)}`;
    before = b.start;
  }
  plot.svg.append(make("path", { class: "line", d: path || "M0 0" }));
  for (const b of bars) {
    const bad = b.alarms / b.rows > b.high;
    plot.svg.append(make("circle", { class: bad ? "dot bad" : "dot", r: bad ? 4.5 : 3, cx: plot.x(b.start + step / 2), cy: plot.y(b.alarms / b.rows) },
      make("title", {}, `${when(b.start)}: ${b.alarms} alarms among ${count(b.rows)} rows (${percent(b.alarms / b.rows)}); normal rows: ${percent(b.low)} to ${percent(b.high)}`)));
  }
  timeAxis(plot, width, x0, x1);
  put(place, plot.svg, asTable("As a table", ["Start", "Rows", "Alarms", "Rate", "Band"],
    bars.map((b) => [when(b.start), count(b.rows), count(b.alarms), percent(b.alarms / b.rows), `${percent(b.low)} – ${percent(b.high)}`])));
  $("rate-note").textContent = `Dashed: the promised rate. Band: where ${percent(state.level, 0)} of the bars lie if the rows are like the training rows. ${outside ? `${outside} of ${bars.length} bars are above it.` : ""}`;
}
function drawDrift() {
  const place = $("drift"), d = state.drift, width = Math.max(300, Math.min(W, place.clientWidth || W));
  $("drift-restart").hidden = !(d && d.alarm_at && isAdmin);
  if (!d || d.points.length === 0) { place.replaceChildren(make("p", { class: "quiet" }, "No rows in this window.")); $("drift-note").textContent = ""; return; }
  const values = d.points.map((p) => p[1]);
  const top = 1.15 * Math.max(d.bound, ...values), bottom = Math.min(0, ...values);
  const x0 = Math.max(state.since, d.points[0][0]), x1 = state.time;
  const label = `Drift martingale: log evidence ${figure(d.log_evidence)}, an alarm at ${figure(d.bound)}${d.alarm_at ? ", alarm raised" : ""}.`;
  const plot = frame(width, label, x0, x1, top, (v) => figure(v), bottom);
  plot.svg.append(make("line", { class: "bound", x1: LEFT, x2: width - 8, y1: plot.y(d.bound), y2: plot.y(d.bound) }),
    make("path", { class: "line", d: d.points.map((p, k) => `${k ? "L" : "M"}${plot.x(Math.max(x0, p[0])).toFixed(1)} ${plot.y(p[1]).toFixed(1)}`).join("") }));
  const last = d.points[d.points.length - 1];
  plot.svg.append(make("circle", { class: last[1] >= last[2] ? "dot bad" : "dot", r: 3.5, cx: plot.x(Math.max(x0, last[0])), cy: plot.y(last[1]) }));
  timeAxis(plot, width, x0, x1);
  put(place, plot.svg, asTable("As a table", ["Time", "Log evidence", "Bound"], d.points.slice(-100).map((p) => [when(p[0]), figure(p[1]), figure(p[2])])));
  $("drift-note").textContent = d.alarm_at
    ? `The stream is not like the calibration rows, since ${when(d.alarm_at)}.`
    : `${count(d.count)} rows. Dashed: the bound. For a stream like the calibration rows it is ever reached with a probability of at most 1%.`;
}
function drawPValues() {
  const place = $("p"), p = state.p_values, width = Math.max(300, Math.min(W, place.clientWidth || W));
  if (!p.rows) { place.replaceChildren(make("p", { class: "quiet" }, "No rows yet.")); $("p-note").textContent = ""; return; }
  const top = 1.1 * Math.max(p.high, ...p.counts), n = p.counts.length;
  const label = `Histogram of the last ${p.rows} p-values; counts of normal rows would lie between ${p.low} and ${p.high}; the first bin has ${p.counts[0]}.`;
  const plot = frame(width, label, 0, 1, top, count);
  plot.svg.append(make("rect", { class: "band", x: LEFT, width: width - LEFT - 8, y: plot.y(p.high), height: plot.y(p.low) - plot.y(p.high) }));
  p.counts.forEach((c, k) => plot.svg.append(make("rect", { class: c > p.high ? "bar bad" : "bar", x: plot.x(k / n) + 1, width: plot.x(1 / n) - plot.x(0) - 2, y: plot.y(c), height: plot.y(0) - plot.y(c), "fill-opacity": 0.85 },
    make("title", {}, `${(k / n).toFixed(2)} to ${((k + 1) / n).toFixed(2)}: ${c} rows`))));
  [0, 0.25, 0.5, 0.75, 1].forEach((v) => plot.svg.append(make("text", { x: plot.x(v), y: H - 6, "text-anchor": v === 0 ? "start" : v === 1 ? "end" : "middle" }, String(v))));
  put(place, plot.svg, asTable("As a table", ["From", "To", "Rows"], p.counts.map((c, k) => [(k / n).toFixed(2), ((k + 1) / n).toFixed(2), count(c)])));
  $("p-note").textContent = `The last ${count(p.rows)} rows. Band: where ${percent(state.level, 0)} of the bars lie if the rows are like the calibration rows.`;
}
function reasonText(event) {
  return event.reasons ? event.reasons.slice(0, 3).map(([name, nats]) => `${name} (${figure(nats)} nats)`).join(", ") : "";
}
function inputText(event) {
  if (!event.inputs || Array.isArray(event.inputs)) return "";
  const names = (event.reasons || []).slice(0, 3).map((r) => r[0]);
  const shown = names.length ? names : Object.keys(event.inputs).slice(0, 3);
  return shown.map((name) => `${name} = ${event.inputs[name] ?? "missing"}`).join(", ");
}
function drawAlarms() {
  $("no-alarms").hidden = state.alarms.length > 0;
  const focused = document.activeElement?.closest?.("#alarms li")?.dataset.id;
  const label = document.activeElement?.dataset?.label;
  $("alarms").replaceChildren(...state.alarms.map((event) => make("li", { "data-id": event.id },
    Array.isArray(event.inputs) ? make("img", { src: `/event/${event.id}/image.png`, alt: "" }) : null,
    make("a", { href: `/event/${event.id}` }, when(event.time)),
    make("span", {}, `p = ${figure(event.p_value)}`),
    make("span", { class: "why" }, reasonText(event) || "no reasons", make("br"), make("span", { class: "quiet" }, inputText(event))),
    make("span", { class: "buttons", role: "group", "aria-label": `Feedback on the alarm of ${when(event.time)}` },
      ...["anomaly", "normal", "unclear"].map((l) => make("button", { type: "button", "data-label": l, "aria-pressed": String(event.label === l),
        on: { click: () => say(event.id, l) } }, l))))));
  if (focused && label) document.querySelector(`#alarms li[data-id="${CSS.escape(focused)}"] button[data-label="${CSS.escape(label)}"]`)?.focus();
  const newest = state.alarms[0]?.id || "";
  if (known !== null && newest && newest !== known) $("announce").textContent = `New alarm: p-value ${figure(state.alarms[0].p_value)}. ${reasonText(state.alarms[0])}`;
  known = newest;
}
function drawVersions() {
  $("versions").querySelector("tbody").replaceChildren(...state.versions.slice().reverse().map((v) => make("tr", {},
    make("th", { scope: "row" }, v.name), make("td", {}, v.version), make("td", {}, make("code", {}, v.digest)), make("td", {}, when(v.time)),
    make("td", {}, make("span", { class: v.active ? "badge good" : "badge" }, v.active ? "active" : v.loaded ? "loaded" : "unloaded")),
    make("td", {}, v.loaded && !v.active && isAdmin
      ? make("button", { type: "button", on: { click: () => post(`/v2/repository/models/${encodeURIComponent(v.name)}/versions/${v.version}/activate`) } }, "Use this version")
      : ""))));
}

// -- actions ----------------------------------------------------------------------------------------------------------

async function post(path, body) {
  try {
    const options = { method: "POST" };
    if (body) Object.assign(options, { headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const answer = await fetch(path, options);
    if (!answer.ok) throw new Error((await answer.json()).error);
    $("announce").textContent = "Done.";
    solved();
    return true;
  } catch (error) { problem(error.message); return false; }
}
async function say(id, label) { if (await post("/feedback", { id, label })) $("announce").textContent = `Labeled ${label}.`; }
// A search for a text reads a part of the events at a time. A look reads so many parts, unless it has found a page of events before.
const PARTS = 10, PAGE = 20;
let searches = 0;
async function search(before) {
  const mine = ++searches, form = new FormData($("search")), parameters = new URLSearchParams({ limit: String(PAGE) });
  for (const [name, value] of form) if (value) parameters.set(name, value);
  if (chosen.model) parameters.set("model", chosen.model);
  const body = $("events").querySelector("tbody");
  let added = 0, full = false;
  try {
    for (let part = 0; part < PARTS; part += 1) {
      if (before) parameters.set("before", before);
      const answer = await fetch(`/events?${parameters}`), found = await answer.json();
      if (mine !== searches) return; // another search was started
      if (!answer.ok) throw new Error(found.error);
      solved();
      if (!before) body.replaceChildren();
      for (const e of found.events) body.append(make("tr", {}, make("td", {}, make("a", { href: `/event/${e.id}` }, when(e.time))), make("td", {}, e.request || e.id.slice(0, 12)),
        make("td", {}, figure(e.p_value)), make("td", {}, figure(e.score)), make("td", {}, e.alarm ? make("span", { class: "badge bad" }, "alarm") : "–"), make("td", {}, reasonText(e)), make("td", {}, e.label || "")));
      oldest = before = found.next;
      added += found.events.length;
      full = found.events.length === PAGE;
      $("older").hidden = !oldest;
      const older = oldest ? (full ? ", and more" : "; older ones were not searched yet") : "";
      const shown = body.children.length;
      $("found").textContent = shown ? `${count(shown)} ${shown === 1 ? "event" : "events"}${older}` : older ? `No events fit${older}.` : "No events fit.";
      if (!oldest || added >= PAGE) return;
    }
  } catch (error) { problem(error.message); }
}
$("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
$("older").addEventListener("click", () => search(oldest));
$("model").addEventListener("change", () => { [chosen.model, chosen.version] = JSON.parse($("model").value); follow(); search(); });
$("window").addEventListener("click", (event) => { if (event.target.dataset.hours) { chosen.hours = event.target.dataset.hours; follow(); } });
$("drift-restart").querySelector("button").addEventListener("click", () => post(`/api/monitor/${encodeURIComponent(state.model.name)}/${state.model.version}/restart`));
addEventListener("resize", () => { if (state) { drawn = ""; draw(); } });
follow();
search();
