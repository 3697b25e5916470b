// One request: what exactly it asks for, and the answers yes and no.

import { Problem, get, post } from "/pages/api.js";
import { tick } from "/pages/clock.js";
import { announce, amount, day, el, facts, moment, problemBox } from "/pages/dom.js";
import { challenge, impossible, refusal, sign } from "/pages/passkey.js";

const path = (id) => `/api/v1/approvals/${encodeURIComponent(id)}`;

/** Whether a role decides; the engine asks again. */
const decides = (session) => ["approver", "admin"].includes(session.role);

const KNOWN = {
  side: "side", quantity: "quantity", instrument: "instrument", price: "price of one unit", amount: "amount",
  closes: "closes", decided_on: "decided on", agent_id: "agent", rationale: "rationale",
};

function headline(action, request) {
  const data = action?.data;
  if (action?.event_type === "TradeProposed" && data?.side) {
    return `${String(data.side).toUpperCase() === "BUY" ? "Buy" : "Sell"} ${data.quantity} ${data.instrument}`;
  }
  const jobs = { "job.run": "Run", "job.force_start": "Start at once", "job.abort": "Give up" };
  if (action?.event_type === "JobSubmitted" && jobs[request.action]) {
    return `${jobs[request.action]}: job ${request.target_id}`;
  }
  return request.action;
}

function value(name, found, currency) {
  if (found === null || found === undefined) return null;
  if (name === "decided_on") return day(found);
  if (name === "price" || name === "amount") return amount(found, currency);
  if (typeof found === "object") {
    if ("key_id" in found) return el("span", { class: "quiet" }, "sealed: your role may not read texts");
    return el("code", null, JSON.stringify(found));
  }
  return String(found);
}

/** Every field of the event behind the digest, the known ones first and in plain words. */
function exactly(action) {
  const data = action?.data ?? {};
  const names = [...Object.keys(KNOWN).filter((name) => name in data),
    ...Object.keys(data).filter((name) => !(name in KNOWN) && name !== "currency")];
  return names.map((name) => [KNOWN[name] ?? name, value(name, data[name], data.currency)]);
}

function people(request) {
  const given = request.given_by ?? [];
  const needed = request.people_needed ?? 1;
  return el("span", null, `${given.length} of ${needed}`, given.length ? ` · ${given.join(", ")}` : "");
}

function digestNote(found) {
  if (found.action_matches === true) {
    return el("span", { class: "good" }, "SHA-256 of what the ledger holds, computed again just now: equal");
  }
  if (found.action_matches === false) {
    return el("span", { class: "bad" }, "NOT the digest of what the ledger holds: do not approve");
  }
  return el("span", { class: "quiet" }, "what it stands for is not known here");
}

function verdictOn(request, target) {
  const by = request.ended_by ?? request.decided_by;
  const line = {
    granted: "Approved", denied: "Denied", expired: "Nobody answered in time",
  }[request.status];
  if (!line) return null;
  const stands = target?.status ? ` The ${target.job_id ? "job" : "trade"} is ${target.status}${target.fill_price ? ` at ${amount(target.fill_price, target.currency)}` : ""}.` : "";
  return el("p", { class: `outcome ${request.status}` }, `${line}${by && request.status !== "expired" ? ` by ${by}` : ""}.${stands}`);
}

/** The pane of one request. */
export function details(id, session) {
  const body = el("div", { class: "details-body" }, el("p", { class: "quiet" }, "Loading …"));
  const answers = el("div", { class: "answers" });
  const result = el("div", { class: "result" });
  const pane = el("section", { class: "details", "aria-label": "Request" },
    el("a", { class: "back", href: "#/" }, "All requests"), body, result, answers);
  let shown = null;
  let busy = false;
  let stream = null;
  let mode = null;

  async function yes(button) {
    busy = true;
    button.disabled = true;
    result.replaceChildren(el("p", { class: "quiet", role: "status" }, "Your authenticator asks you …"));
    try {
      const options = await get(`${path(id)}/options`);
      // what is signed must be what is shown: the engine's word alone does not count
      const own = await challenge(shown.approval);
      if (own !== options.publicKey.challenge) {
        throw new Problem({ title: "not signed", message: "the engine asks to sign something else than this page shows",
          remedy: "load the page again; if it stays so, tell whoever runs the engine" });
      }
      const assertion = await sign(options);
      const outcome = await post(`${path(id)}/give`, { assertion });
      result.replaceChildren(el("p", { class: "outcome granted", role: "status" },
        `Your approval is recorded at position ${outcome.positions?.[0] ?? "?"}.`));
      announce("Your approval is recorded.");
    } catch (error) {
      fail(error);
    } finally {
      busy = false;
      button.disabled = false;
      await refresh();
    }
  }

  async function no(event) {
    event.preventDefault();
    const reason = event.target.elements.reason.value.trim();
    const button = event.target.querySelector("button[type=submit]");
    busy = true;
    button.disabled = true;
    try {
      await post(`${path(id)}/deny`, { reason });
      result.replaceChildren(el("p", { class: "outcome denied", role: "status" }, "The request is denied."));
      announce("The request is denied.");
    } catch (error) {
      fail(error);
    } finally {
      busy = false;
      button.disabled = false;
      await refresh();
    }
  }

  function fail(error) {
    const said = refusal(error);
    result.replaceChildren(problemBox(error instanceof Problem ? error.problem
      : { title: "not approved", message: said ?? String(error.message ?? error) }));
  }

  function ask() {
    const hindrance = impossible() ?? (location.origin === session.page ? null
      : `Passkeys work at ${session.page} only.`);
    const own = [shown.approval.requested_by, shown.approval.on_behalf_of].includes(session.actor);
    const form = el("form", { class: "deny", hidden: true, onsubmit: no },
      el("label", { for: "reason" }, "Why not?"),
      el("textarea", { id: "reason", name: "reason", rows: 3, maxlength: 4000, required: true }),
      el("p", { class: "quiet" }, "Kept with the request, scrubbed of secrets and sealed."),
      el("div", { class: "buttons" },
        el("button", { type: "submit", class: "danger" }, "Deny the request"),
        el("button", { type: "button", class: "plain", onclick: () => toggle(false) }, "Keep it waiting")));
    const approve = el("button", { type: "button", class: "primary", disabled: Boolean(hindrance),
      onclick: (event) => yes(event.currentTarget) }, "Approve with passkey");
    const deny = el("button", { type: "button", "aria-expanded": "false", onclick: () => toggle(form.hidden) }, "Deny …");
    function toggle(on) {
      form.hidden = !on;
      deny.setAttribute("aria-expanded", String(on));
      if (on) form.elements.reason.focus();
      else deny.focus();
    }
    return [
      hindrance ? el("p", { class: "problem" }, hindrance) : null,
      own ? el("p", { class: "quiet" }, "You asked for this yourself: somebody else has to approve it.") : null,
      el("div", { class: "buttons" }, approve, deny), form,
    ];
  }

  async function draw(found) {
    const { approval: request, action, target } = found;
    const waiting = request.status === "waiting";
    const focused = body.contains(document.activeElement);
    const policy = `version ${request.policy_version}${request.rule ? `, rule “${request.rule}”` : ""}`;
    body.replaceChildren(
      el("header", { class: "details-head" },
        el("div", null,
          el("h1", { tabindex: "-1" }, headline(action, request)),
          el("p", { class: "quiet" }, request.target_id)),
        el("div", { class: "details-side" },
          el("span", { class: "sum" }, amount(request.amount, request.currency)),
          waiting ? el("span", { class: "clock", "data-expires": request.expires_at })
            : el("span", { class: `badge ${request.status}` }, request.status))),
      verdictOn(request, target) ?? "",
      request.reason ? facts([["reason", value("reason", request.reason)]]) : "",
      el("h2", null, "Exactly this"),
      action ? facts(exactly(action)) : el("p", { class: "quiet" }, "The action behind the digest is not in this ledger."),
      el("h2", null, "Who asks, and under which rule"),
      facts([
        ["requested by", request.requested_by],
        ["on behalf of", request.on_behalf_of],
        ["department", action?.department ?? request.department],
        ["policy", policy],
        ["people who approved", people(request)],
        ["until", moment(request.expires_at)],
      ]),
      el("details", { class: "proof", open: found.action_matches === false },
        el("summary", null, "What your passkey signs"),
        facts([
          ["approval", el("code", null, request.approval_id)],
          ["digest of the action", el("span", null, el("code", { class: "long" }, request.action_digest), el("br"), digestNote(found))],
          ["challenge", el("code", { class: "long" }, await challenge(request))],
        ]),
        el("p", { class: "quiet" }, "The challenge is computed in this page from approval, digest, policy version and expiry: one cent more gives another.")));
    tick();
    if (focused) body.querySelector("h1").focus();
    const next = waiting && decides(session) ? "ask" : waiting ? "look" : "ended";
    if (next !== mode) {
      mode = next;
      answers.replaceChildren(...(next === "ask" ? ask() : next === "look"
        ? [el("p", { class: "quiet" }, `Your role ${session.role} may look and not decide.`)] : []).filter(Boolean));
    }
    follow(request, target);
  }

  /** What waits goes on after an answer: its own events are pushed as well. */
  function follow(request, target) {
    if (stream || !target) return;
    const of = encodeURIComponent(`${target.job_id ? "job" : "trade"}/${request.target_id}`);
    stream = new EventSource(`/api/v1/events/stream?aggregate=${of}&sealed=true`);
    stream.addEventListener("message", () => setTimeout(refresh, 200));
  }

  async function refresh() {
    if (busy) return;
    try {
      const kept = body.querySelector("details.proof")?.open;
      const found = await get(`${path(id)}/details`);
      shown = found;
      await draw(found);
      if (kept) body.querySelector("details.proof").open = true;
    } catch (error) {
      body.replaceChildren(problemBox(error.problem ?? { message: String(error) }));
      answers.replaceChildren();
      mode = null;
    }
  }

  return { id, pane, refresh, close: () => stream?.close() };
}
