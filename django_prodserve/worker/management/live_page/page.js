// The live page: requests data from the management address each second, and shows it.
//
// Any worker may answer, so nothing here depends on which one did: every worker reads rates and findings from
// the scoreboard that all workers share.
// Paths and stacks contain text that clients sent: they become text nodes and nothing else.
"use strict";

const POLL_MS = 1000; // between two requests
const ANSWER_TIMEOUT_MS = 4000;
const CHART_SECONDS = 300;
const GAP_SECONDS = 3; // without a point; then a line has a gap

const $ = (id) => document.getElementById(id);

// The decisions that operators look for first.
const MAIN = new Set(["bind", "profile", "cpus", "memory", "worker_memory", "workers", "threads", "timeout"]);

// ---- Elements and words ----

/** Make an element: attributes, then children; strings become text. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== "" && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const known = (value) => value !== null && value !== undefined;

function number(value) {
  if (!known(value)) return "–";
  if (value > 0 && value < 0.01) return "<0.01";
  return value >= 99.5 || value === 0 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(2));
}

function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 0.9995) return `${number(seconds * 1000)} ms`;
  return seconds < 99.5 ? `${+seconds.toPrecision(2)} s` : age(seconds);
}

/** A percentile is somewhere in its bucket of the histogram. */
function about(seconds) {
  return known(seconds) ? `~${duration(seconds)}` : "–";
}

function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function size(bytes) {
  if (!bytes) return "–";
  const [unit, name] = bytes >= 2 ** 30 ? [2 ** 30, "GiB"] : [2 ** 20, "MiB"];
  const value = bytes / unit;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${name}`;
}

// One time zone for the page, the log and the terminal.
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

// ---- What is known ----

let points = []; // one for each second: see monitoring/rates.py
let marks = []; // events that the charts show
let shown = ""; // which events are shown
let lastAnswer = 0;
let limit = null; // bytes of memory
let isLimited = true; // or the limit is what the machine has
let threads = 0;
let room = null; // requests each second that the server could serve
let server = {}; // what does not change: see monitoring/server_facts.py

// Each line: its label, its colour, what it shows of a point; then how it looks.
const area = { area: true };
const bound = { width: 1, dash: [4, 4] };
const line = (label, color, read, look = {}) => ({ label, color, read, ...look });

const CHARTS = [
  {
    title: "Requests each second",
    write: number,
    // Up to the room if that is near.
    scale: { range: () => [0, Math.max(5, 1.1 * (rush() > 0.3 * room ? Math.max(room, rush()) : rush()))] },
    lines: [
      line("all", "--blue", (point) => point.requests, area),
      line("4xx", "--amber", (point) => point.classes[3]),
      line("5xx", "--red", (point) => point.classes[4]),
      line("rejected", "--violet", (point) => point.refused),
      line("room", "--quiet", () => room, bound),
    ],
  },
  {
    title: "Latency (log scale)",
    write: about,
    // Logarithmic: it shows the median and the slowest request of a hundred.
    scale: { distr: 3, range: (plot, low, high) => [Math.min(0.001, low || 1), Math.max(0.1, high * 1.5)] },
    ticks: (low, high) => [0.0001, 0.001, 0.01, 0.1, 1, 10, 100].filter((tick) => tick >= low && tick <= high),
    lines: [
      line("p99", "--red", (point) => point.p99),
      line("p95", "--amber", (point) => point.p95),
      line("p50", "--blue", (point) => point.p50, { width: 2.25 }),
    ],
  },
  {
    title: "Threads and queue",
    write: number,
    scale: { range: (plot, low, high) => [0, Math.max(4, high * 1.1)] },
    steps: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000],
    lines: [
      line("busy", "--blue", (point) => point.busy, area),
      line("waiting", "--red", (point) => point.waiting),
      line("threads", "--quiet", () => threads || null, bound),
    ],
  },
  {
    title: "Memory",
    write: size,
    // Up to the limit if it is near; else the line would be at the bottom of the chart.
    scale: { range: () => [0, Math.max(2 ** 26, most() > 0.3 * limit ? Math.max(limit, most()) * 1.08 : most() * 1.5)] },
    steps: [...Array(16).keys()].flatMap((power) => [2 ** (22 + power), 1.5 * 2 ** (22 + power)]).filter((step) => step % 2 ** 22 === 0),
    lines: [
      line("used", "--blue", (point) => point.memory || null, area),
      line("limit", "--red", () => (isLimited ? limit : null), bound),
      line("machine", "--quiet", () => (isLimited ? null : limit), bound),
    ],
  },
];

const ROOM = CHARTS[0].lines.at(-1);
const [LIMIT, MACHINE] = CHARTS[3].lines.slice(-2);

const rush = () => Math.max(0, ...points.map((point) => Math.max(point.requests || 0, point.refused || 0)));
const most = () => Math.max(0, ...points.map((point) => point.memory || 0));

// ---- Charts ----

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Create the plot of a chart in the current colours; remove an earlier plot. */
function draw(chart) {
  chart.plot?.destroy();
  const grid = { stroke: color("--grid"), width: 1 };
  const axis = { stroke: color("--quiet"), grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const options = {
    width: chart.place.clientWidth,
    height: chart.place.clientHeight,
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    cursor: { sync: { key: "prodserve" }, y: false, drag: { x: false, y: false } },
    scales: {
      x: { range: () => span() },
      y: chart.scale,
    },
    axes: [
      { ...axis, size: 26, space: 80, values: [[60, "{HH}:{mm}"], [1, "{HH}:{mm}:{ss}"]] },
      {
        ...axis,
        size: 64,
        space: 30,
        ...(chart.steps ? { incrs: chart.steps } : {}),
        ...(chart.ticks ? { splits: (plot, index, low, high) => chart.ticks(low, high), filter: (plot, splits) => splits } : {}),
        values: (plot, splits) => splits.map((split) => (split ? chart.write(split).replace("~", "") : "0")),
      },
    ],
    series: [
      {},
      ...chart.lines.map((line) => ({
        label: line.label,
        stroke: color(line.color),
        fill: line.area ? `${color(line.color)}22` : undefined,
        width: line.width ?? 1.75,
        dash: line.dash,
        points: { show: false },
      })),
    ],
    hooks: { setCursor: [(plot) => caption(chart, plot.cursor.idx)], drawClear: [markEvents] },
  };
  chart.plot = new uPlot(options, columns(chart), chart.place);
}

/** Draw a line at each event, such as a replaced worker or a new generation: it may explain a change. */
function markEvents(plot) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const { time, level } of marks) {
    if (time < plot.scales.x.min || time > plot.scales.x.max) continue;
    const x = Math.round(plot.valToPos(time, "x", true)) + 0.5;
    ctx.strokeStyle = color({ bad: "--red", warn: "--amber", ok: "--good" }[level] ?? "--quiet");
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

/** Return the period of the charts: 5 minutes, or since the start, but at least a minute. */
function span() {
  if (!points.length) return [Date.now() / 1000 - 60, Date.now() / 1000];
  const end = points[points.length - 1].time;
  return [Math.max(end - CHART_SECONDS, Math.min(points[0].time, end - 60)), end];
}

function columns(chart) {
  const read = (line) => points.map((point) => (point.gap ? null : (line.read(point) ?? null)));
  return [points.map((point) => point.time), ...chart.lines.map(read)];
}

/** Show the values under the cursor, or the last ones. */
function caption(chart, index) {
  const point = points[index ?? points.length - 1];
  chart.lines.forEach((line, nth) => {
    const value = point && !point.gap ? line.read(point) : null;
    chart.values[nth].textContent = `${line.label} ${chart.write(value)}`;
    chart.labels[nth].hidden = { [MACHINE.label]: isLimited, [LIMIT.label]: !isLimited, [ROOM.label]: !room }[line.label] ?? false;
  });
}

function setUpCharts() {
  for (const chart of CHARTS) {
    chart.place = make("div", { class: "plot", "aria-hidden": "true" });
    chart.values = chart.lines.map((line) => document.createTextNode(line.label));
    chart.labels = chart.lines.map((line, nth) => {
      const mark = make("i", {});
      mark.style.background = `var(${line.color})`;
      return make("span", {}, mark, chart.values[nth]);
    });
    const title = make("h3", {}, chart.title);
    $("charts").append(make("figure", {}, make("figcaption", {}, title, ...chart.labels), chart.place));
    draw(chart);
    new ResizeObserver(() => {
      chart.plot.setSize({ width: chart.place.clientWidth, height: chart.place.clientHeight });
    }).observe(chart.place);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => CHARTS.forEach(draw));
}

function showCharts() {
  for (const chart of CHARTS) {
    chart.plot.setData(columns(chart));
    caption(chart, chart.plot.cursor.idx);
  }
}

/** Add a point; missing points become a gap in the lines. */
function remember(point) {
  const last = points[points.length - 1];
  if (last && point.time <= last.time) return;
  if (last && point.time - last.time > GAP_SECONDS) points.push({ time: last.time + 1, gap: true });
  points.push(point);
  const first = point.time - CHART_SECONDS - GAP_SECONDS;
  points = points.slice(points.findIndex((known) => known.time >= first));
}

// ---- Parts of the page ----

function showServer(live) {
  const release = `generation ${live.generation} loaded ${age(live.uptime)} ago`;
  const parts = [server.host, ...(server.bind ?? []), `up ${age(live.server_uptime)}`, release, ...certificates(live)];
  $("server").textContent = parts.filter(Boolean).join(" · ");
}

/** Return until when the certificate is valid that ends first, and how many more there are. */
function certificates({ certificates: found = [] }) {
  if (!found.length) return [];
  const [{ names, file, expires }, ...others] = found;
  const day = new Date(1000 * expires).toISOString().slice(0, 10);
  return [`certificate of ${names[0] ?? file} valid until ${day}${others.length ? ` and ${others.length} more` : ""}`];
}

/** Show what does not change: the project's directory, its settings and the versions. */
function showAbout() {
  const { prodserve, django, gunicorn, python } = server.versions ?? {};
  const versions = prodserve && `prodserve ${prodserve}, Django ${django}, Gunicorn ${gunicorn}, Python ${python}`;
  $("about").textContent = [server.project, server.settings, versions, "times in UTC"].filter(Boolean).join(" · ");
}

function showVerdict(live) {
  const rates = live.rates;
  const busy = rates.requests ? `${number(rates.requests)} requests/s, 95 % below ${duration(rates.p95)}` : "no requests now";
  const well = [{ level: "ok", kind: "ok", text: `Serving normally: ${busy}`, spoken: "Serving normally" }];
  const found = live.findings.length ? live.findings : well;
  announce(found);
  $("advice").textContent = live.advice ? `Advice: ${live.advice}` : "";
  $("room").textContent = live.room ? `Room: ${live.room.text}` : "";
  document.title = live.findings.length ? `⚠ ${found[0].text}` : `${number(rates.requests)}/s · prodserve`;
}

/** Show the verdict with its actions; a screen reader announces it when the kinds of findings change. */
function announce(found) {
  const kinds = found.map((finding) => `${finding.level} ${finding.kind}`).sort().join("\n");
  if ($("spoken").dataset.kinds !== kinds) {
    $("spoken").dataset.kinds = kinds;
    $("spoken").textContent = found.map((finding) => finding.spoken ?? finding.text).join(". ");
  }
  const text = found.map((finding) => `${finding.level} ${finding.text} ${finding.action}`).join("\n");
  if ($("verdict").dataset.shown === text) return;
  $("verdict").dataset.shown = text;
  $("verdict").replaceChildren(...found.map((finding) => make("p", { class: finding.level }, finding.text, ...remedy(finding))));
}

/** Return the action for a finding, and the command that explains it. */
function remedy({ action, help }) {
  if (!action) return [];
  const more = help ? [" More: ", make("code", {}, `prodserve help ${help}`)] : [];
  return [make("small", {}, action, ...more)];
}

function showTiles(live) {
  const rates = live.rates;
  const classes = rates.classes.length ? rates.classes : [0, 0, 0, 0, 0];
  const failed = classes[4] + (rates.refused || 0);
  // As bad as the verdict, so that one second's errors do not contradict its minute.
  const level = (...kinds) => live.findings.find(({ kind }) => kinds.includes(kind))?.level ?? "";
  const serving = live.workers.filter((worker) => worker.state === "serving");
  threads = serving.reduce((sum, worker) => sum + worker.threads, 0);
  room = live.room?.room ?? null;
  limit = live.memory_limit;
  isLimited = server.memory_limited ?? true;
  const share = limit ? rates.memory / limit : 0;
  const tiles = [
    rates.refused
      ? ["Rejected/s", number(rates.refused), `${number(rates.requests)} answered/s`, "bad"]
      : ["Requests/s", number(rates.requests), room ? `room for about ${number(+room.toPrecision(2))}` : `${live.requests.toLocaleString("en")} since the start`, ""],
    ["5xx and rejected/s", number(failed), `${number(classes[3])} 4xx/s`, failed ? level("errors", "overload") : ""],
    ["Latency p95", about(rates.p95), `p50 ${about(rates.p50)}, p99 ${about(rates.p99)}`, ""],
    ["Waiting", number(rates.waiting), `p95 waited ${about(rates.queued95)}`, rates.queued95 >= 1 ? "bad" : rates.queued95 >= 0.1 ? "warn" : ""],
    ["Busy threads", `${rates.busy}/${threads}`, serving.length === 1 ? "1 worker serves" : `${serving.length} workers serve`, threads && rates.busy >= threads ? "warn" : ""],
    ["Memory", size(rates.memory), limit ? `${number(100 * share)} % of ${size(limit)}${isLimited ? "" : " (machine)"}` : "no limit known", level("memory")],
  ];
  $("tiles").replaceChildren(...tiles.map(([title, value, more, level]) =>
    make("div", { class: level },
      make("dt", {}, title),
      make("dd", { class: "value" }, value),
      make("dd", { class: "more" }, more))));
}

function growth(worker) {
  if (worker.max_threads === worker.threads && !worker.growth_hold) return "";
  return ` of ${worker.max_threads}${worker.growth_hold ? `, ${worker.growth_held}` : ""}`;
}

function showWorkers(live) {
  const cells = (worker) => {
    const share = `${Math.round(100 * worker.cpu_share)} %`;
    const meter = make("meter", { min: 0, max: worker.threads || 1, high: Math.max(worker.threads - 0.5, 0), "aria-label": "busy threads" });
    meter.value = worker.busy;
    return [
      ["State", worker.state], ["Busy threads", meter, `${worker.busy}/${worker.threads}${growth(worker)}${worker.async ? `, ${number(worker.async)} async` : ""}`],
      ["Limit", number(worker.concurrency_limit)], ["Waiting", number(worker.queue)],
      ["CPU", share], ["Memory", size(worker.memory)], ["Connections", `${number(worker.connections)}${worker.websockets ? `, ${number(worker.websockets)} websockets` : ""}`],
      ["Requests", number(worker.requests)], ["Age", age(worker.age)],
    ];
  };
  $("workers").tBodies[0].replaceChildren(...live.workers.flatMap((worker) => {
    const row = make("tr", {}, make("th", { scope: "row" }, `pid ${worker.pid}`),
      ...cells(worker).map(([label, ...content]) =>
        make("td", { "data-label": label, class: label === "State" ? `state-${worker.state}` : "" }, make("span", {}, ...content))));
    const below = [loopOf(worker), oldestOf(worker)].filter(Boolean).map((text) =>
      make("tr", {}, make("td", { colspan: 10, class: "oldest" }, make("span", { class: "long" }, text))));
    return [row, ...below];
  }));
  const ended = Object.entries(live.restarts).map(([reason, count]) => `${reason} ${count}`).join(", ");
  $("restarts").textContent = ended && `Replaced since the start: ${ended}`;
}

function oldestOf(worker) {
  const oldest = worker.oldest;
  return oldest && oldest.age >= 1 && `oldest request of ${worker.pid}: ${oldest.method} ${oldest.path} for ${duration(oldest.age)}`;
}

/** Return the state of a worker's asyncio loop; nothing without one. It lags, and blocks, while requests run on it. */
function loopOf(worker) {
  const loop = worker.loop;
  if (!loop) return null;
  const parts = [
    `${number(worker.async)} async`, `lag ${duration(worker.async || worker.websockets ? loop.lag : 0)}`,
    `leased threads ${loop.leases_busy}/${loop.leases}`,
  ];
  if (loop.leases_waiting) parts.push(`${number(loop.leases_waiting)} wait for one`);
  if (loop.blocked) parts.push(`blocked ${number(loop.blocked)} times`);
  return `asyncio loop of ${worker.pid}: ${parts.join(", ")}`;
}

/** Show what runs alongside the workers, if anything does. */
function showProcesses(processes) {
  $("side").hidden = !processes.length;
  const row = (process) =>
    make("tr", {}, make("th", { scope: "row" }, process.name),
      ...[
        ["State", process.failing ? `${process.state}, failing` : process.state], ["Pid", process.pid ? String(process.pid) : "–"],
        ["Memory", process.pid ? size(process.memory) : "–"], ["Restarts", number(process.restarts)],
        ["Age", process.pid ? age(process.age) : "–"], ["Last end", process.last_end ?? "–"],
      ].map(([label, text]) => make("td", { "data-label": label }, make("span", {}, text))));
  $("processes").tBodies[0].replaceChildren(...processes.map(row));
}

/** Return whether a table shows something else so far: what is selected in it would be lost for nothing. */
function isNew(table, content) {
  const key = JSON.stringify(content);
  if (table.dataset.shown === key) return false;
  table.dataset.shown = key;
  return true;
}

/** Show on which routes the time of the requests was spent, if any has ended. */
function showRoutes(routes) {
  if (!isNew($("routes"), routes)) return;
  $("spent").hidden = !routes.length;
  const meter = (share) => {
    const element = make("meter", { min: 0, max: 1, "aria-label": "share of the time" });
    element.value = share;
    return element;
  };
  const row = (route) =>
    make("tr", {}, make("th", { scope: "row" }, route.route),
      ...[
        ["Share of the time", meter(route.share), `${number(100 * route.share)} %`],
        ["Requests", number(route.requests)], ["Mean", duration(route.mean)], ["Maximum", duration(route.maximum)],
      ].map(([label, ...content]) => make("td", { "data-label": label }, make("span", {}, ...content))));
  $("routes").tBodies[0].replaceChildren(...routes.map(row));
}

/** Show the last requests that failed, if any has. */
function showErrors(errors) {
  if (!isNew($("errors"), errors)) return;
  $("failed").hidden = !errors.length;
  const row = (error) =>
    make("tr", {}, make("th", { scope: "row" }, clock(error.time)),
      ...[
        ["Status", error.status < 500 ? `${error.status}, aborted` : String(error.status)],
        ["Request", `${error.method} ${error.path}`], ["Route", error.route || "–"],
        ["Exception", error.exception || "–"], ["Request id", error.id || "–"],
      ].map(([label, text]) => make("td", { "data-label": label }, make("span", {}, text))));
  $("errors").tBodies[0].replaceChildren(...[...errors].reverse().map(row));
}

/** Return where a stack ends: its innermost call, which Python prints last. */
function where(stack) {
  const calls = [...stack.matchAll(/^ {2}File "(.*)", line (\d+), in (.*)$/gm)];
  if (!calls.length || stack.includes("most recent call first")) return "stack";
  const [, file, line, name] = calls[calls.length - 1];
  return `in ${name}, ${file.split("/").slice(-2).join("/")} line ${line}`;
}

/** Scroll a stack to its innermost calls if they come last: they are the cause. */
function showEnd(details, stack) {
  const place = details.querySelector("pre");
  if (details.open && !stack.includes("most recent call first")) place.scrollTop = place.scrollHeight;
}

function showEvents(events) {
  marks = events.filter((event) => !["slow", "timeout", "stacks", "advice"].includes(event.kind));
  const open = new Set([...$("events").querySelectorAll("details[open]")].map((details) => details.dataset.key));
  $("events").replaceChildren(...[...events].reverse().map((event) => {
    const body = make("div", {}, event.text);
    if (event.stack) {
      const key = `${event.time} ${event.text}`;
      const details = make("details", { "data-key": key }, make("summary", {}, where(event.stack)), make("pre", { tabindex: 0 }, event.stack));
      details.addEventListener("toggle", () => showEnd(details, event.stack));
      details.open = open.has(key);
      body.append(details);
    }
    const when = new Date(event.time * 1000).toISOString();
    return make("li", {}, make("time", { datetime: when, title: when }, clock(event.time)),
      make("span", { class: `kind ${event.level}` }, event.kind), body);
  }));
}

function showPlan(status) {
  const { decisions = {}, notes = [], warnings = [] } = status.plan;
  $("notes").replaceChildren(
    ...warnings.map((text) => make("li", { class: "warn" }, `Warning: ${text}`)),
    ...notes.map((text) => make("li", {}, text)));
  const row = ([name, decision]) =>
    make("tr", {}, make("th", { scope: "row" }, name.replaceAll("_", "-")),
      ...[["Value", decision.value], ["Why", decision.why], ["Source", decision.source]].map(([label, text]) =>
        make("td", { "data-label": label }, make("span", {}, text))));
  const all = Object.entries(decisions);
  $("main-decisions").tBodies[0].replaceChildren(...all.filter(([name]) => MAIN.has(name)).map(row));
  $("decisions").tBodies[0].replaceChildren(...all.filter(([name]) => !MAIN.has(name)).map(row));
}

// ---- Requests ----

async function ask(name) {
  const answer = await fetch(name, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS), cache: "no-store" });
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.json();
}

/** Load what does not change each second: events, the plan and, after a gap, the history. */
async function learn(live, gap) {
  if (gap) points = await ask("history.json");
  const status = await ask("status.json");
  server = status.server;
  showAbout();
  showEvents(status.events);
  showPlan(status);
  shown = String([live.generation, ...live.latest_event]);
}

async function look() {
  const gap = !lastAnswer || Date.now() - lastAnswer > GAP_SECONDS * POLL_MS;
  const live = await ask("live.json");
  if (gap || shown !== String([live.generation, ...live.latest_event])) await learn(live, gap);
  lastAnswer = Date.now();
  remember(live.rates);
  showServer(live);
  showVerdict(live);
  showTiles(live);
  showWorkers(live);
  showProcesses(live.processes);
  showRoutes(live.routes);
  showErrors(live.recent_errors);
  showCharts();
  pulse("live", `live, ${clock(live.rates.time)} UTC`);
}

function pulse(state, text) {
  document.body.classList.toggle("stale", state === "gone");
  $("pulse").className = state;
  $("pulse").textContent = text;
}

function gone() {
  const since = lastAnswer ? ` since ${clock(lastAnswer / 1000)} UTC` : "";
  announce([{ level: "bad", kind: "gone", text: `No server answers here${since}. Retrying every second.` }]);
  $("advice").textContent = $("room").textContent = "";
  document.title = "⚠ no server · prodserve";
  pulse("gone", "no answer");
}

/** Request data without end, one request at a time; a hidden tab waits. */
async function run() {
  for (;;) {
    const began = performance.now();
    if (document.visibilityState === "hidden") {
      await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
      continue;
    }
    try {
      await look();
    } catch (error) {
      if (error instanceof ReferenceError) throw error;
      gone();
    }
    const rest = POLL_MS - (performance.now() - began);
    await new Promise((go) => setTimeout(go, Math.max(200, rest)));
  }
}

setUpCharts();
run();
