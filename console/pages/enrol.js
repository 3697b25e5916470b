// Enrolment: the bearer of an invitation makes himself a passkey.

import { Problem, post } from "/pages/api.js";
import { announce, el, problemBox } from "/pages/dom.js";
import { create, impossible, refusal } from "/pages/passkey.js";

const main = document.getElementById("main");
// it stays here: neither in the address bar nor in the history
const ticket = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

function show(...parts) {
  main.replaceChildren(el("section", { class: "card alone" }, ...parts));
}

function done(approver) {
  announce("The passkey is enrolled.");
  show(
    el("h1", null, "The passkey is enrolled"),
    el("p", null, "From now on it signs for ", el("strong", null, approver),
      ". The invitation is used up."),
    el("p", null, el("a", { class: "button primary", href: "/approvals" }, "Go to the approvals")));
}

async function enrol(event) {
  event.preventDefault();
  const form = event.target;
  const label = form.elements.label.value.trim();
  const button = form.querySelector("button");
  const failures = document.getElementById("failures");
  failures.replaceChildren();
  button.disabled = true;
  try {
    const options = await post("/api/v1/enrolment/options", {}, { token: ticket });
    const registration = await create(options);
    await post("/api/v1/enrolment", label ? { registration, label } : { registration }, { token: ticket });
    done(options.approver);
  } catch (error) {
    const said = refusal(error);
    failures.replaceChildren(problemBox(error instanceof Problem ? error.problem
      : { title: "no passkey was made", message: said ?? String(error.message) }));
    button.disabled = false;
  }
}

if (!ticket) {
  show(
    el("h1", null, "Enrol a passkey"),
    el("p", null, "This page is opened by the link of an invitation. Open the whole link again, with what stands behind #, or ask an admin for another:"),
    el("pre", null, "sovereign approvers invite NAME"));
} else {
  const hindrance = impossible();
  show(
    el("h1", null, "Enrol a passkey"),
    el("p", null, "With it you approve actions: it signs exactly what you see, and it asks for your PIN, finger or face each time. The invitation is good for one passkey and one day."),
    hindrance ? el("p", { class: "problem", role: "alert" }, hindrance) : null,
    el("form", { onsubmit: enrol },
      el("label", { for: "label" }, "What do you call it? ", el("span", { class: "quiet" }, "optional")),
      el("input", { id: "label", name: "label", type: "text", maxlength: 64, pattern: "[A-Za-z0-9._:\\/@+\\-]*",
        autocomplete: "off", spellcheck: "false", placeholder: "laptop", "aria-describedby": "label-note" }),
      el("p", { id: "label-note", class: "quiet" }, "Letters, digits and . _ : / @ + - without blanks. Everybody who reads the ledger can read it."),
      el("div", { id: "failures" }),
      el("button", { type: "submit", class: "primary", disabled: Boolean(hindrance) }, "Make a passkey")));
}
