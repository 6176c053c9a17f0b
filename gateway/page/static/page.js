"use strict";

// Twenty rows of text that move. What is received only changes the model; the
// screen is painted from it at most once a frame of the display, so that a
// burst of ticks costs one painting.

const ROWS = 20;
const EVERY = 100;             // ms between two updates of a symbol
const NARROW_FROM = 3 * ROWS;  // symbols from which on only the rows are subscribed to
const LIVE_FOR = 2000;         // ms without a tick until LIVE becomes QUIET
const ACK_EVERY = 250;         // ms; this page's thread can lag behind its socket
const BACKOFF_MIN = 500, BACKOFF_MAX = 15000; // ms, doubling, times 0.5 to 1.5

const $ = (id) => document.getElementById(id);
const url = (location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/v1/ws";

// Decimals are strings and stay exact: a decimal is [BigInt, digits behind the point].
const parse = (s) => {
  const point = s.indexOf(".");
  return point < 0 ? [BigInt(s), 0] : [BigInt(s.replace(".", "")), s.length - point - 1];
};
const format = ([n, scale]) => {
  const digits = (n < 0n ? -n : n).toString().padStart(scale + 1, "0");
  const cut = digits.length - scale;
  return (n < 0n ? "-" : "") + digits.slice(0, cut) + (scale ? "." + digits.slice(cut) : "");
};
const minus = (a, b) => {
  const [x, xs] = parse(a), [y, ys] = parse(b), scale = Math.max(xs, ys);
  return [x * 10n ** BigInt(scale - xs) - y * 10n ** BigInt(scale - ys), scale];
};
const less = (a, b) => minus(a, b)[0] < 0n;
// percent is how far last is from base, for the eye only: two digits.
const percent = (last, base) => {
  if (!last || !base || Number(base) === 0) return null;
  return Number(format(minus(last, base))) / Math.abs(Number(base)) * 100;
};

const topics = new Map(); // symbol: what is known of it
let rows = [];            // the topics on screen, in their order
let socket = null, opened = false, attempts = 0, narrowed = false, timer = 0;
let frame = 0, acked = 0, ticks = 0, lastTick = 0, dirty = false;
let word = "connecting", why = "";

function say(state, reason = "") {
  word = state;
  why = reason;
  schedule();
}

function connect() {
  timer = 0;
  opened = narrowed = false;
  frame = acked = 0;
  say(attempts ? "reconnecting" : "connecting");
  const s = socket = new WebSocket(url, "tickgate.v1.json");
  s.onopen = () => {
    if (s !== socket) return;
    opened = true;
    s.send(JSON.stringify({ op: "subscribe", ref: 1, channel: "ticker", symbols: ["*"], every: EVERY }));
  };
  s.onmessage = (m) => {
    if (s !== socket) return;
    const f = JSON.parse(m.data);
    frame = f.frame;
    for (const e of f.events) take(e);
  };
  s.onclose = (c) => {
    if (s === socket) ended(c.code, c.reason);
  };
}

// ended retries unless the gateway said that the same would happen again.
function ended(code, reason) {
  socket = null;
  for (const t of topics.values()) t.state = "";
  if (code === 1002 || code === 1009 || (code >= 4200 && code < 4300)) {
    say("ended", `closed by the gateway: ${reason || code}; reload to try again`);
    return;
  }
  if (opened) attempts = 0;
  retry(Math.min(BACKOFF_MAX, BACKOFF_MIN * 2 ** attempts++) * (0.5 + Math.random()), reason);
}

function retry(wait, reason) {
  say("reconnecting", `${reason ? reason + "; " : ""}next try in ${(wait / 1000).toFixed(1)} s`);
  clearTimeout(timer);
  timer = setTimeout(connect, wait);
}

function take(e) {
  switch (e.type) {
    case "welcome":
      attempts = 0;
      $("node").textContent = `${e.node} (${e.version})`;
      break;
    case "snapshot":
    case "ticker": {
      const t = topic(e.symbol);
      if (t.last && e.last && t.last !== e.last) t.moved = less(t.last, e.last) ? "up" : "down";
      Object.assign(t, e);
      if (e.type === "ticker") {
        ticks++;
        lastTick = performance.now();
      }
      break;
    }
    case "state":
      Object.assign(topic(e.symbol), { state: e.state, stateWhy: e.why });
      break;
    case "reset":
      topics.delete(e.symbol);
      rows = rows.filter((t) => t.symbol !== e.symbol);
      break;
    case "snapshot_end":
      choose();
      break;
    case "goaway": {
      // All clients of that gateway leave now: not all in the same second.
      const old = socket;
      socket = null;
      old.close(1000);
      retry(Math.random() * Math.max(e.window || 0, 1000) / 2, "the gateway is leaving");
      break;
    }
    case "error":
    case "refused":
      say(word, `${e.code}: ${e.what}`);
      break;
  }
  schedule();
}

function topic(symbol) {
  let t = topics.get(symbol);
  if (!t) topics.set(symbol, t = { symbol, state: "", moved: "" });
  return t;
}

// choose fills the rows with the symbols that traded most, and leaves rows
// where they are: a row that jumps cannot be read.
function choose() {
  if (rows.length < ROWS) {
    const more = [...topics.values()].filter((t) => !rows.includes(t) && t.ingest);
    more.sort((a, b) => Number(b.trades || 0) - Number(a.trades || 0) || (a.symbol < b.symbol ? -1 : 1));
    rows = rows.concat(more.slice(0, ROWS - rows.length));
  }
  if (!narrowed && rows.length === ROWS && topics.size > NARROW_FROM && socket && opened) {
    narrowed = true;
    const symbols = rows.map((t) => t.symbol);
    socket.send(JSON.stringify({ op: "unsubscribe", ref: 2, channel: "ticker", symbols: ["*"] }));
    socket.send(JSON.stringify({ op: "subscribe", ref: 3, channel: "ticker", symbols, every: EVERY }));
  }
}

function acknowledge() {
  if (opened && socket && frame > acked) {
    acked = frame;
    socket.send(JSON.stringify({ op: "ack", frame }));
  }
}

function schedule() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(paint);
}

// overall is one word for everything on screen.
function overall() {
  if (!socket || !opened) return [word, why];
  const bad = rows.filter((t) => t.state === "stale" || t.state === "gap");
  if (rows.length && bad.length === rows.length) return ["stale", bad[0].stateWhy || "no word from the source"];
  if (bad.length) return ["live", `${bad.length} of ${rows.length} stale`];
  if (rows.length && rows.every((t) => t.state === "replay")) return ["live", "replay of recorded ticks"];
  if (performance.now() - lastTick < LIVE_FOR) return ["live", why];
  return ["quiet", why || "connected; nothing trades"];
}

function age(ingest) {
  if (!ingest) return ["", false];
  const ms = Date.now() - Number(ingest) / 1000;
  if (ms < -50) return [`clock ${(ms / 1000).toFixed(1)} s`, true];
  if (ms < 1000) return [`${Math.max(0, Math.round(ms))} ms`, false];
  if (ms < 60e3) return [`${(ms / 1000).toFixed(1)} s`, ms > 5000];
  if (ms < 3600e3) return [`${Math.round(ms / 60e3)} min`, true];
  if (ms < 48 * 3600e3) return [`${Math.round(ms / 3600e3)} h`, true];
  return [`${Math.round(ms / 86400e3)} d`, true];
}

function put(cell, text, className = "") {
  if (cell.textContent !== text) cell.textContent = text;
  if (cell.className !== className) cell.className = className;
}

function flash(cell, direction) {
  for (const a of cell.getAnimations()) a.cancel();
  cell.classList.remove("flash-up", "flash-down");
  void cell.offsetWidth; // so that the same animation starts again
  cell.classList.add("flash-" + direction);
}

function makeRow(t) {
  const tr = document.createElement("tr");
  const th = document.createElement("th");
  th.scope = "row";
  th.append(t.symbol, document.createElement("small"));
  tr.append(th);
  for (let i = 0; i < 7; i++) tr.append(document.createElement("td"));
  tr.dataset.symbol = t.symbol;
  t.tr = tr;
  return tr;
}

const shown = (v) => (v === null || v === undefined ? "" : String(v));

function paint() {
  dirty = false;
  if (rows.length < ROWS && topics.size > rows.length) choose();
  const [state, reason] = overall();
  $("status").dataset.state = state;
  put($("word"), state.toUpperCase());
  put($("why"), reason);
  $("empty").hidden = rows.length > 0;
  const body = $("rows");
  rows.forEach((t, i) => {
    const tr = t.tr || makeRow(t);
    if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] || null);
    tr.dataset.state = t.state;
    put(tr.cells[0].lastChild, ["stale", "gap", "halted", "closed", "loading"].includes(t.state) ? t.state.toUpperCase() : "");
    const [, last, change, bid, ask, volume, trades, old] = tr.cells;
    if (last.textContent !== shown(t.last)) last.textContent = shown(t.last);
    if (t.moved) {
      flash(last, t.moved);
      t.moved = "";
    }
    const p = percent(t.last, t.prev_close || t.open);
    put(change, p === null ? "" : (p < 0 ? "" : "+") + p.toFixed(2) + " %", p > 0 ? "up" : p < 0 ? "down" : "");
    put(bid, shown(t.bid));
    put(ask, shown(t.ask));
    put(volume, t.volume && t.base_volume ? format(minus(t.volume, t.base_volume)) : shown(t.volume));
    put(trades, t.trades === undefined ? "" : String(BigInt(t.trades) - BigInt(t.base_trades || 0)));
    const [text, late] = age(t.ingest);
    put(old, text, late ? "old" : "");
  });
  while (body.children.length > rows.length) body.lastChild.remove();
  document.querySelector("table").classList.toggle("cut", !socket || !opened);
}

$("url").textContent = url;
$("tail").textContent = `tickgate tail --url ${url} SYMBOL`;
setInterval(() => { // ages grow without any tick
  $("rate").textContent = opened && socket ? `${ticks * 2} updates/s` : "";
  ticks = 0;
  schedule();
}, 500);
setInterval(acknowledge, ACK_EVERY);
window.addEventListener("online", () => { if (timer) { clearTimeout(timer); connect(); } });
connect();
