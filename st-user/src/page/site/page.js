"use strict";

// What the wire brought is only ever set as text, never as markup.

const DANGER = ["overdue", "expiring", "expired"];
const SILENT_MS = 30000;
const AGAIN_MS = 3000;
const GAP_MS = 30000;

const $ = (id) => document.getElementById(id);
let skew = 0;
let heard = Date.now();
let latest = { sessions: [], states: {}, held: 0 };
let opened = null;
const streams = {};

const now = () => Date.now() + skew;
const at = (time) => (time ? Date.parse(time) : NaN);

// Controls, and what would turn the direction of the text round, are shown as what they are: not text.
const clean = (text) => String(text ?? "").replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "\uFFFD");

function make(tag, classes, text) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = clean(text);
  return element;
}

// As `sipst sessions` writes it.
function span(ms) {
  const sign = ms < 0 ? "-" : "";
  const s = Math.floor(Math.abs(ms) / 1000);
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (hours) return `${sign}${hours}h${two(minutes)}m`;
  if (minutes) return `${sign}${minutes}m${two(s % 60)}s`;
  return `${s ? sign : ""}${s}s`;
}

function clock(ms, fine) {
  const time = new Date(ms);
  const two = (number) => String(number).padStart(2, "0");
  const text = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return fine ? `${text}.${String(time.getMilliseconds()).padStart(3, "0")}` : text;
}

// ---- the calls

const rows = new Map();
const keyOf = (session) => JSON.stringify([session.call_id, session.local_tag, session.remote_tag]);

function wanted(session) {
  const text = $("text").value.trim().toLowerCase();
  if ($("danger").checked && !DANGER.includes(session.state)) return false;
  return !text || [session.call_id, session.peer, session.trunk].some((part) => part.toLowerCase().includes(text));
}

function addRow(session) {
  const row = make("tr");
  row.setAttribute("role", "row");
  const cell = (classes) => {
    const made = make("td", classes);
    made.setAttribute("role", "cell");
    row.append(made);
    return made;
  };
  const left = cell("left mark");
  const text = make("span");
  const bar = make("span", "bar");
  bar.setAttribute("aria-hidden", "true");
  const fill = make("i");
  bar.append(fill);
  left.append(text, bar);
  const [state, refresher, trunk, peer, id] = ["mark", "", "", "address", "id"].map(cell);
  const link = make("a");
  link.href = `#call=${encodeURIComponent(session.call_id)}`;
  link.textContent = clean(session.call_id);
  id.append(link);
  return { row, text, bar, fill, state, refresher, trunk, peer };
}

function showRow(made, session) {
  made.session = session;
  made.row.dataset.state = session.state;
  made.state.textContent = session.held ? `${session.state}, held` : session.state;
  made.refresher.textContent = session.refresher ?? "none";
  made.trunk.textContent = clean(session.trunk);
  made.peer.textContent = session.peer;
}

function count(made) {
  const { session } = made;
  const deadline = at(session.deadline);
  made.bar.hidden = Number.isNaN(deadline);
  if (Number.isNaN(deadline)) {
    made.text.textContent = "no deadline";
    return;
  }
  const left = deadline - now();
  made.text.textContent = span(left);
  const whole = session.interval_s * 1000;
  made.fill.style.width = `${Math.max(0, Math.min(100, (100 * left) / whole))}%`;
}

function showCalls() {
  const body = $("rows");
  const focused = document.activeElement;
  const shown = latest.sessions.filter(wanted);
  const keys = new Set(shown.map(keyOf));
  for (const [key, made] of rows) {
    if (!keys.has(key)) {
      // Whoever stood on it goes on from the list.
      if (made.row.contains(focused)) $("calls").focus({ preventScroll: true });
      made.row.remove();
      rows.delete(key);
    }
  }
  shown.forEach((session, place) => {
    const key = keyOf(session);
    if (!rows.has(key)) rows.set(key, addRow(session));
    const made = rows.get(key);
    showRow(made, session);
    count(made);
    if (body.children[place] !== made.row) {
      const moved = made.row.contains(focused);
      body.insertBefore(made.row, body.children[place] ?? null);
      if (moved) focused.focus({ preventScroll: true });
    }
  });
  const up = Object.entries(latest.states).filter(([state]) => state !== "ended");
  const total = up.reduce((sum, [, number]) => sum + number, 0);
  $("none").hidden = shown.length > 0;
  $("none").textContent = total ? "No call is as the filter says." : "No calls.";
  const of = latest.sessions.length < total ? `${latest.sessions.length} of ${total} calls are shown here.` : "";
  $("caption").textContent = `The nearest deadline first. ${of}`;
  const list = [["calls", total], ...up.filter(([, number]) => number), ["held", latest.held]];
  $("states").replaceChildren(
    ...list.filter(([name, number]) => number || name === "calls").map(([name, number]) => {
      const item = make("li", "", ` ${name === "calls" && number === 1 ? "call" : name}`);
      item.prepend(make("b", "", number));
      return item;
    }),
  );
  const danger = DANGER.reduce((sum, state) => sum + (latest.states[state] ?? 0), 0);
  const said = danger ? `${danger} ${danger === 1 ? "call" : "calls"} in danger` : "No call in danger";
  if ($("announce").textContent !== said) $("announce").textContent = said;
  document.title = danger ? `(${danger}) sipst` : "sipst";
}

// ---- one call

const PLACES = { server: 0, sipst: 1, peer: 2 };

function facts(call) {
  const list = make("dl");
  list.dataset.state = call.state;
  const fact = (name, text, classes) => {
    list.append(make("dt", "", name), make("dd", classes, text));
    return list.lastChild;
  };
  const marks = [
    [call.held, "held"], [call.relayed, "relayed by this host"], [call.mid_call, "met in the middle"],
    [call.unsure, "unsure: it may be over"], [call.proven, "refreshed by sipst before"],
  ].filter(([is]) => is).map(([, mark]) => `, ${mark}`).join("");
  fact("State", `${call.state}${marks}`, "mark");
  fact("Server", `${call.server}, tag ${call.local_tag}`);
  fact("Peer", `${call.peer}, tag ${call.remote_tag}`);
  fact("Trunk", `${call.trunk}, action: ${call.action}`);
  fact("Began", "").dataset.since = call.started;
  if (call.interval_s) fact("Interval", `${call.interval_s} s, and the ${call.refresher} must refresh`);
  if (call.deadline) fact("Deadline", "").dataset.until = call.deadline;
  fact("sipst", call.outlook);
  return list;
}

function step(time, lane, words) {
  const item = make("li");
  const when = make("span", "time", clock(time));
  when.title = `${clock(time, true)}`;
  item.append(when);
  const box = make("div", "lane");
  if (words) box.append(make("span", "unseen", `${words}: `));
  box.append(lane);
  item.append(box);
  return item;
}

function arrow(message) {
  const [from, to] = [PLACES[message.from], PLACES[message.to]];
  const ours = message.from === "sipst" || message.to === "sipst";
  const half = from + to === 1 ? " half-left" : from + to === 3 ? " half-right" : "";
  const line = make("span", `arrow ${from < to ? "right" : "back"}${half}${ours ? " ours" : ""}`);
  const name = message.status ? `${message.status} to ${message.method}` : message.method;
  line.append(make("b", "", message.copies > 1 ? `${name} ×${message.copies}` : name));
  const more = [];
  if (message.sdp) more.push("SDP");
  if (message.interval_s) more.push(`${message.interval_s} s${message.refresher ? `, refresher ${message.refresher}` : ""}`);
  if (message.number !== undefined) more.push(`CSeq ${message.number}`);
  line.append(make("small", "", more.join(" · ")));
  return step(at(message.time), line, `${message.from} to ${message.to}`);
}

const GOOD = ["session_started", "session_refreshed", "refresh_succeeded", "refresh_answered", "server_told", "breaker_closed"];
const CALM = ["timer_negotiated", "refresh_due", "refresh_sent", "session_ended", "session_held", "session_released", "answer_withheld"];

function happening(event) {
  const words = [event.event.replaceAll("_", " ")];
  if (event.by) words.push(`by ${event.by}`);
  if (event.method) words.push(event.method);
  if (event.status) words.push(event.status);
  if (event.interval_s && event.event === "timer_negotiated") words.push(`${event.interval_s} s, refresher ${event.refresher}`);
  if (event.reason) words.push(event.reason);
  if (event.deadline && GOOD.includes(event.event)) words.push(`until ${clock(at(event.deadline))}`);
  const kind = GOOD.includes(event.event) ? " good" : CALM.includes(event.event) ? "" : " bad";
  const breaches = (event.breaches ?? []).map((breach) => `${breach.by}: ${breach.reason}`);
  return step(at(event.time), make("span", `note${kind}`, [...words, ...breaches].join(", ")));
}

function ahead(name, time, bad) {
  const mark = make("span", `note ahead${bad ? " bad" : ""}`, name);
  mark.dataset.ahead = name;
  mark.dataset.time = time;
  return step(at(time), mark);
}

let shownCall = null;
const passed = (data) => data.calls.flatMap((call) => [call.act, call.deadline, call.expires]).filter((time) => at(time) < now()).length;

function showCall(data) {
  shownCall = { data, passed: passed(data) };
  const ended = data.calls.length === 0;
  $("call-note").hidden = !ended;
  if (ended) {
    $("call-note").textContent = data.messages.length
      ? "This call is over; what was seen of it is below."
      : "There is no such call, or no more.";
  }
  $("dialogs").replaceChildren(...data.calls.map(facts));
  const items = [];
  let last = null;
  for (const message of data.messages) {
    const same = last && ["from", "to", "status", "method", "number"].every((key) => last[key] === message[key]);
    if (same) {
      last.copies += 1;
    } else {
      last = { ...message, copies: 1 };
      const kept = last;
      items.push([at(message.time), () => arrow(kept)]);
    }
  }
  for (const call of data.calls) {
    for (const event of call.timeline) items.push([at(event.time), () => happening(event)]);
    if (call.state === "ended") continue;
    if (call.act) items.push([at(call.act), () => ahead("somebody has to act", call.act, false)]);
    if (call.deadline) items.push([at(call.deadline), () => ahead("the peer may hang up", call.deadline, true)]);
    if (call.expires) items.push([at(call.expires), () => ahead("the interval runs out", call.expires, true)]);
  }
  if (data.calls.some((call) => call.state !== "ended")) {
    items.push([now(), () => {
      const mark = step(now(), make("span", "note nowmark", "now"));
      mark.firstChild.id = "now";
      return mark;
    }]);
  }
  items.sort(([a], [b]) => a - b);
  const list = [];
  items.forEach(([time, draw], place) => {
    const before = place ? items[place - 1][0] : time;
    if (time - before > GAP_MS) {
      const gap = step(time, make("span", "", `${span(time - before)} later`));
      gap.className = "gap";
      gap.firstChild.textContent = "";
      list.push(gap);
    }
    list.push(draw());
  });
  $("ladder").replaceChildren(...list);
  $("ladder").hidden = list.length === 0;
  countCall();
}

function countCall() {
  if (shownCall && shownCall.passed !== passed(shownCall.data)) return showCall(shownCall.data);
  if ($("now")) $("now").textContent = clock(now());
  for (const element of document.querySelectorAll("[data-since]")) {
    const since = at(element.dataset.since);
    element.textContent = `${clock(since)}, ${span(now() - since)} ago`;
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    const until = at(element.dataset.until);
    element.textContent = `${clock(until)}, ${until < now() ? `passed ${span(now() - until)} ago` : `in ${span(until - now())}`}`;
  }
  for (const element of document.querySelectorAll("[data-ahead]")) {
    const left = at(element.dataset.time) - now();
    element.textContent = left < 0 ? `${element.dataset.ahead}, since ${span(-left)}` : `${element.dataset.ahead} in ${span(left)}`;
  }
}

// ---- the streams

function close(name) {
  streams[name]?.source.close();
  clearTimeout(streams[name]?.again);
  delete streams[name];
}

function open(name, url, show) {
  close(name);
  const source = new EventSource(url);
  streams[name] = { source };
  source.addEventListener("now", (event) => {
    skew = Number(event.data) - Date.now();
    heard = Date.now();
    linked("live", "live");
  });
  source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  source.onerror = () => {
    linked("lost", "no connection, trying again");
    // A browser gives up where it was turned away.
    if (source.readyState === EventSource.CLOSED) streams[name].again = setTimeout(() => open(name, url, show), AGAIN_MS);
  };
}

function linked(kind, text) {
  const link = $("link");
  if (link.dataset.link === kind) return;
  link.dataset.link = kind;
  link.textContent = text;
}

// ---- which of both is shown

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function route() {
  const id = location.hash.startsWith("#call=") ? decoded(location.hash.slice(6)) : null;
  if (id === opened) return;
  const before = opened;
  opened = id;
  $("call").hidden = id === null;
  $("calls").hidden = id !== null;
  close("call");
  shownCall = null;
  if (id === null) {
    const row = [...rows.values()].find((made) => made.session.call_id === before);
    (row ? row.row.querySelector("a") : $("calls")).focus();
    return;
  }
  $("call-title").textContent = `Call ${clean(id)}`;
  $("call-note").hidden = false;
  $("call-note").textContent = "looking for it";
  $("dialogs").replaceChildren();
  $("ladder").replaceChildren();
  $("call-title").focus();
  open("call", `call?id=${encodeURIComponent(id)}`, showCall);
}

addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened !== null) location.hash = "#calls";
});
$("filter").addEventListener("input", showCalls);
$("filter").addEventListener("submit", (event) => event.preventDefault());

setInterval(() => {
  for (const made of rows.values()) count(made);
  if (opened !== null) countCall();
  if (Date.now() - heard > SILENT_MS) linked("lost", "nothing heard for a while");
}, 1000);

open("sessions", "live", (data) => {
  latest = data;
  showCalls();
});
route();
