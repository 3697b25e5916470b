// Elements without HTML: whatever a text holds, it is shown as text.

/**
 * Makes an element. `props` are attributes; `class`, `on…` (listeners) and booleans work as one
 * expects. Children are elements or texts; null and false are left out.
 */
export function el(name, props, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Tells screen readers, without moving the focus. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** An exact decimal with its thousands apart: never through a floating-point number. */
export function amount(text, currency) {
  const [whole, fraction] = String(text).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const cents = fraction === undefined ? "" : `.${fraction.padEnd(2, "0")}`;
  return `${grouped}${cents}${currency ? ` ${currency}` : ""}`;
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeZone: "UTC" });

/** A moment in the reader's time zone; the exact one on hover. */
export function moment(iso) {
  const date = new Date(iso);
  return el("time", { datetime: iso, title: iso }, Number.isNaN(date.valueOf()) ? iso : MOMENT.format(date));
}

/** The day of a moment, in UTC, as markets count days. */
export function day(iso) {
  const date = new Date(iso);
  return el("time", { datetime: iso, title: iso }, Number.isNaN(date.valueOf()) ? iso : DAY.format(date));
}

/** Terms and what they are; lines without a value are left out. */
export function facts(lines) {
  const there = lines.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, there.map(([term, value]) =>
    el("div", null, el("dt", null, term), el("dd", null, value))));
}

/** What went wrong, with what to do and where it is explained. */
export function problemBox(problem) {
  const { code, message, field, expected, found, remedy } = problem;
  return el("div", { class: "problem", role: "alert" },
    el("p", { class: "problem-title" }, String(problem.title ?? code ?? "failed")),
    el("p", null, message ?? problem.detail ?? "the request failed"),
    expected || found ? facts([["field", field], ["found", found], ["expected", expected]]) : null,
    remedy ? el("p", null, `What to do: ${remedy}.`) : null,
    code ? el("p", null, el("a", { href: `/errors/${encodeURIComponent(code)}`, target: "_blank", rel: "noopener" },
      "What ", el("code", null, code), " means")) : null);
}
