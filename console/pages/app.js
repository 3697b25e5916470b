// The approval page: who is logged in, which request is shown, and what is pushed.

import { Problem, logIn, logOut, rows, session } from "/pages/api.js";
import { tick } from "/pages/clock.js";
import { details } from "/pages/details.js";
import { announce, amount, el, moment, problemBox } from "/pages/dom.js";

/** Requests that a list shows at most. */
const ROWS_MAX = 2_000;
const ENDED_SHOWN_MAX = 200;
/** How often, and how long apart, a list is asked for that has not seen an event yet. */
const CATCH_UP_MAX = 60;
const CATCH_UP_MS = 150;

const main = document.getElementById("main");
const bar = document.getElementById("session");
const state = { session: null, stream: null, seen: 0, waiting: null, ended: null, open: null, whole: true };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What the address says: a list, and maybe one request. */
function place() {
  const [kind, id] = location.hash.replace(/^#\/?/, "").split("/");
  if (kind === "approval" && id) return { list: state.list ?? "waiting", id: decodeURIComponent(id) };
  return { list: kind === "ended" ? "ended" : "waiting", id: null };
}

function row(request, chosen) {
  const waiting = request.status === "waiting";
  const wants = request.on_behalf_of ?? request.requested_by;
  const given = (request.given_by ?? []).length;
  const needed = request.people_needed ?? 1;
  return el("li", null,
    el("a", { class: "row", href: `#/approval/${encodeURIComponent(request.approval_id)}`,
      "aria-current": chosen ? "true" : null },
      el("span", { class: "row-amount" }, amount(request.amount, request.currency)),
      waiting ? el("span", { class: "clock", "data-expires": request.expires_at })
        : el("span", { class: `badge ${request.status}` }, request.status),
      el("span", { class: "row-target" }, request.target_id),
      el("span", { class: "row-who" }, `for ${wants}`,
        waiting && needed > 1 ? ` · ${given} of ${needed} people` : "",
        waiting ? "" : " · ", waiting ? null : moment(request.updated_at))));
}

function listPane(where) {
  const found = state[where.list];
  const tab = (name, title, count) => el("a", { href: `#/${name === "waiting" ? "" : name}`,
    "aria-current": where.list === name ? "page" : null }, title,
    count === null ? null : el("span", { class: "count" }, String(count)));
  const rowsOf = found === null ? el("p", { class: "quiet" }, "Loading …")
    : found.length === 0
      ? el("p", { class: "empty" }, where.list === "waiting" ? "Nothing waits for you or anybody." : "Nothing has ended yet.")
      : el("ul", { class: "rows" }, found.map((request) => row(request, request.approval_id === where.id)));
  return el("nav", { class: "list", "aria-label": "Requests" },
    el("div", { class: "tabs" },
      tab("waiting", "Waiting", state.waiting === null ? null : state.waiting.length),
      tab("ended", "Ended", null)),
    rowsOf,
    where.list === "ended" && !state.whole
      ? el("p", { class: "quiet" }, `Only some are shown; all: sovereign approvals list --all`) : null);
}

function loginPane(failure) {
  const failures = el("div", null, failure ? problemBox(failure) : null);
  const submit = async (event) => {
    event.preventDefault();
    const field = event.target.elements.token;
    try {
      state.session = await logIn(field.value.trim());
      field.value = "";
      await start();
    } catch (error) {
      failures.replaceChildren(problemBox(error.problem ?? { title: "failed", message: String(error) }));
      field.focus();
    }
  };
  return el("section", { class: "card alone" },
    el("h1", null, "Log in"),
    el("p", null, "With a token of the engine. To approve, it has to be one of yours with the role approver:"),
    el("pre", null, "sovereign tokens create NAME --role approver"),
    el("form", { onsubmit: submit },
      el("label", { for: "token" }, "Token"),
      el("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true }),
      failures,
      el("button", { type: "submit", class: "primary" }, "Log in")));
}

function sessionBar() {
  if (!state.session) return bar.replaceChildren();
  const { actor, role } = state.session;
  bar.replaceChildren(
    el("span", { id: "live", class: "live", title: "Requests are pushed as they come" }, "live"),
    el("span", null, el("strong", null, actor ?? "owner"), el("span", { class: "quiet" }, ` ${role}`)),
    el("button", { type: "button", class: "plain", onclick: leave }, "Log out"));
}

async function leave() {
  await logOut().catch(() => null);
  stop(null);
}

function stop(failure) {
  state.stream?.close();
  state.open?.close();
  Object.assign(state, { session: null, stream: null, waiting: null, ended: null, open: null });
  sessionBar();
  document.body.className = "";
  main.replaceChildren(loginPane(failure));
}

/** Shows lists and details anew; what somebody writes in the details stays. */
async function render({ keepDetails = false } = {}) {
  if (!state.session) return;
  const where = place();
  state.list = where.list;
  document.body.className = where.id ? "has-details" : "has-list";
  const lists = listPane(where);
  const old = main.querySelector(".details");
  if (keepDetails && old && state.open?.id === where.id) {
    main.querySelector(".list")?.replaceWith(lists);
    await state.open.refresh();
  } else {
    state.open?.close();
    state.open = where.id ? details(where.id, state.session) : null;
    main.replaceChildren(lists, state.open ? state.open.pane
      : el("section", { class: "details nothing" }, el("p", { class: "quiet" }, "Choose a request to see what exactly it asks for.")));
    if (state.open) await state.open.refresh();
  }
  document.title = state.waiting?.length ? `(${state.waiting.length}) Approvals · Sovereign` : "Approvals · Sovereign";
  tick();
}

/** Asks for the lists until they have seen the newest event that was pushed. */
async function refresh() {
  if (state.refreshing) return;
  state.refreshing = true;
  try {
    for (let round = 0; round < CATCH_UP_MAX; round += 1) {
      const aim = state.seen;
      const all = await rows("/api/v1/approvals?all=true", ROWS_MAX);
      if (!state.session) return;
      const before = state.waiting?.length ?? null;
      state.waiting = all.rows.filter((r) => r.status === "waiting")
        .sort((a, b) => a.expires_at.localeCompare(b.expires_at));
      state.ended = all.rows.filter((r) => r.status !== "waiting")
        .sort((a, b) => b.updated_at.localeCompare(a.updated_at)).slice(0, ENDED_SHOWN_MAX);
      state.whole = all.whole && all.rows.length - state.waiting.length <= ENDED_SHOWN_MAX;
      if (before !== null && before !== state.waiting.length) announce(`${state.waiting.length} requests wait`);
      await render({ keepDetails: true });
      if (all.position >= aim && aim === state.seen) return;
      if (all.position < aim) await pause(CATCH_UP_MS);
    }
  } catch (error) {
    if (error instanceof Problem && error.problem.status === 401) return stop(error.problem);
    main.querySelector(".list")?.replaceChildren(problemBox(error.problem ?? { message: String(error) }));
  } finally {
    state.refreshing = false;
  }
}

/** Every event of an approval is pushed; none is asked for. */
function listen() {
  const stream = new EventSource("/api/v1/events/stream?aggregate=approval&sealed=true");
  const live = (on) => {
    const sign = document.getElementById("live");
    if (!sign) return;
    sign.textContent = on ? "live" : "reconnecting";
    sign.classList.toggle("off", !on);
  };
  stream.addEventListener("open", () => {
    live(true);
    refresh();
  });
  stream.addEventListener("error", () => live(false));
  stream.addEventListener("message", (event) => {
    state.seen = Math.max(state.seen, Number(event.lastEventId));
    refresh();
  });
  stream.addEventListener("end", async (event) => {
    const words = JSON.parse(event.data);
    if (words.code === "unauthorized") {
      stream.close();
      stop(words);
    }
  });
  state.stream = stream;
}

async function start() {
  sessionBar();
  await render();
  listen();
}

window.addEventListener("hashchange", async () => {
  await render();
  if (place().id && document.body.classList.contains("has-details")) main.querySelector(".details h1")?.focus();
});
setInterval(tick, 500);

try {
  state.session = await session();
  if (state.session) await start();
  else main.replaceChildren(loginPane(null));
} catch (error) {
  main.replaceChildren(loginPane(error.problem ?? { message: String(error) }));
}
