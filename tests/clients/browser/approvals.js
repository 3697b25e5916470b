// Real people's work on the approval page, in Chromium with virtual authenticators: enrol by
// invitation, approve, deny, and everything that must be refused. Prints one JSON object.
//
// node approvals.js PLAN.json — origin, tokens and links, see tests/tests/engine/browser.rs
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { chromium } = require("playwright-core");

const plan = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const PATIENCE_MS = 30_000;
const refused = {};
const noted = [];

async function api(token, method, route, body) {
  const answer = await fetch(`${plan.origin}${route}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return { status: answer.status, ...(await answer.json()) };
}

const send = async (aggregate, id, command, data) => {
  const answer = await api(plan.owner, "POST", "/api/v1/commands",
    { aggregate, id, command, data, ...(aggregate === "trade" ? { department: "trader" } : {}) });
  assert.equal(answer.status, "accepted", JSON.stringify(answer));
};

let bars = 0;
/** A bar of both instruments: what was authorized before it is filled at its open. */
async function bar() {
  bars += 1;
  const opened_at = `2001-02-${String(bars).padStart(2, "0")}`;
  for (const [hunter, instrument] of [["hunter-solo", "SOLO"], ["hunter-pair", "PAIR"]]) {
    await send("agent", hunter, "observe_market", { instrument, opened_at, open: "100", high: "101", low: "99",
      close: "100", volume: "1000" });
  }
  return opened_at;
}

let day = null;
/** An intent above the limit; its approval, once it waits. */
async function intent(id, { agent = `agent-${id}`, instrument = "SOLO", price = "100.01", quantity = "11", rationale = "a test" } = {}) {
  await send("trade", id, "propose", { agent_id: agent, instrument, side: "BUY", quantity, price, decided_on: day, rationale });
  const approval = `approval_${id}`;
  for (const until = Date.now() + PATIENCE_MS; ;) {
    const found = await api(plan.owner, "GET", `/api/v1/approvals/${approval}`);
    if (found.status === "waiting") return approval;
    assert(Date.now() < until, `no ${approval}: ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** One person: a browser of his own with an authenticator of his own. */
class Person {
  static async arrive(browser, name, options = {}) {
    const person = new Person();
    person.name = name;
    person.token = plan.people[name].token;
    person.context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
    person.page = await person.context.newPage();
    person.page.setDefaultTimeout(PATIENCE_MS);
    person.page.on("pageerror", (error) => noted.push(`${name}: ${error}`));
    person.page.on("console", (message) => {
      // a refused request is logged by the browser itself
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) noted.push(`${name}: ${message.text()}`);
    });
    person.page.on("dialog", (dialog) => {
      noted.push(`${name}: dialog ${dialog.message()}`);
      dialog.dismiss();
    });
    person.devtools = await person.context.newCDPSession(person.page);
    await person.devtools.send("WebAuthn.enable");
    const { authenticatorId } = await person.devtools.send("WebAuthn.addVirtualAuthenticator", {
      options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true,
        isUserVerified: true, automaticPresenceSimulation: true },
    });
    person.authenticatorId = authenticatorId;
    return person;
  }

  async enrol() {
    await this.page.goto(plan.people[this.name].link);
    await this.page.getByLabel("What do you call it?").fill(`${this.name}-test`);
    await this.page.getByRole("button", { name: "Make a passkey" }).click();
    await this.page.getByRole("heading", { name: "The passkey is enrolled" }).waitFor();
    assert(!this.page.url().includes("svi_"), "the invitation stays out of the address");
  }

  async logIn() {
    await this.page.goto(`${plan.origin}/approvals`);
    await this.page.getByLabel("Token").fill(this.token);
    await this.page.getByRole("button", { name: "Log in" }).click();
    await this.page.getByRole("link", { name: /Waiting/ }).waitFor();
  }

  async open(approval) {
    await this.page.goto(`${plan.origin}/approvals#/approval/${approval}`);
    await this.page.getByRole("button", { name: "Approve with passkey" }).waitFor();
    await this.page.locator(".details-head .quiet", { hasText: approval.replace("approval_", "") }).waitFor();
  }

  async approve(approval) {
    await this.open(approval);
    await this.page.getByRole("button", { name: "Approve with passkey" }).click();
  }

  /** The code that the page shows, and links to. */
  async shown() {
    const code = this.page.locator(".problem code");
    await code.waitFor();
    return code.textContent();
  }

  /** Signs a challenge of our own with this person's passkey on the page that is open. */
  async sign(challenge, { verification = "required" } = {}) {
    const rows = await api(this.token, "GET", `/api/v1/approvers/${this.name}/passkeys`);
    const ids = rows.passkeys.map((key) => key.credential_id);
    return this.page.evaluate(async ({ challenge, ids, verification }) => {
      const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
      const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
        .replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
      const given = await navigator.credentials.get({ publicKey: { rpId: "localhost", challenge: bytes(challenge),
        allowCredentials: ids.map((id) => ({ type: "public-key", id: bytes(id) })), userVerification: verification } });
      return { credential_id: text(given.rawId), authenticator_data: text(given.response.authenticatorData),
        client_data: text(given.response.clientDataJSON), signature: text(given.response.signature) };
    }, { challenge, ids, verification });
  }

  async challengeOf(approval) {
    const options = await api(this.token, "GET", `/api/v1/approvals/${approval}/options`);
    return options.publicKey.challenge;
  }

  /** Sends an assertion as the page would, from the page's own session. */
  async give(approval, assertion) {
    return this.page.evaluate(async ({ approval, assertion }) => {
      const session = await (await fetch("/api/v1/session")).json();
      const answer = await fetch(`/api/v1/approvals/${approval}/give`, { method: "POST",
        headers: { "x-csrf-token": session.csrf_token, "content-type": "application/json" },
        body: JSON.stringify({ assertion }) });
      return (await answer.json()).code ?? "accepted";
    }, { approval, assertion });
  }

  async picture(name) {
    await this.page.waitForTimeout(150);
    await this.page.screenshot({ path: path.join(plan.pictures, `${name}.png`) });
  }
}

async function yesAndNo(anna, olga) {
  const rationale = "Breakout <img src=x onerror=alert(1)> <script>alert(2)</script> & more";
  const yes = await intent("yes-1", { rationale, price: "100.37", quantity: "14" });
  await anna.page.locator(`a[href="#/approval/${yes}"]`).waitFor();
  await intent("other-1");
  await anna.picture("list-light");
  await anna.open(yes);
  // an admin reads texts, and markup in them is text
  await anna.page.getByText(rationale).waitFor();
  assert.equal(await anna.page.locator(".details img, .details script").count(), 0);
  await anna.page.getByText("computed again just now: equal").waitFor({ state: "attached" });
  await anna.picture("details-light");
  await anna.page.getByRole("button", { name: "Approve with passkey" }).click();
  await anna.page.locator(".outcome", { hasText: "Your approval is recorded" }).waitFor();
  await anna.page.locator(".badge.granted").first().waitFor();
  // resumed: the exchange fills it with the next bar, and that is pushed as well
  await anna.page.getByText("The trade is authorized").waitFor();
  day = await bar();
  await anna.page.getByText("The trade is filled at 100 USD").waitFor();

  // who is asked to approve reads why, whatever else his role may not read
  const no = await intent("no-1", { rationale: "because it is Friday" });
  await olga.open(no);
  await olga.page.getByText("because it is Friday").waitFor();
  await olga.page.getByRole("button", { name: "Deny …" }).click();
  await olga.page.getByLabel("Why not?").fill("too large for a <b>Friday</b>");
  await olga.page.getByRole("button", { name: "Deny the request" }).click();
  await olga.page.locator(".badge.denied").first().waitFor();
  await olga.page.getByRole("link", { name: "Ended" }).click();
  await olga.page.locator(`a[href="#/approval/${no}"]`).waitFor();
}

async function refusedOnThePage(anna, bert, olga) {
  await bert.approve(await intent("limit-1", { quantity: "16" }));
  refused["beyond the limit"] = await bert.shown();
  await bert.picture("refused-light");
  await bert.page.emulateMedia({ colorScheme: "dark" });
  await bert.picture("refused-dark");
  await bert.page.setViewportSize({ width: 390, height: 844 });
  await bert.picture("refused-narrow-dark");
  await bert.page.emulateMedia({ colorScheme: "light" });
  await bert.page.evaluate(() => scrollTo(0, 0));
  await bert.picture("details-narrow");
  await bert.page.setViewportSize({ width: 1280, height: 860 });

  await olga.approve(await intent("self-1", { agent: "olga" }));
  refused["the requester himself"] = await olga.shown();

  const pair = await intent("pair-1", { instrument: "PAIR" });
  await anna.open(pair);
  const first = await anna.sign(await anna.challengeOf(pair));
  assert.equal(await anna.give(pair, first), "accepted");
  refused["replayed"] = await anna.give(pair, first);
  await anna.page.getByText("1 of 2 · anna").waitFor();
  await anna.page.getByRole("button", { name: "Approve with passkey" }).click();
  refused["twice by the same person"] = await anna.shown();
  await olga.approve(pair);
  await olga.page.locator(".badge.granted").first().waitFor();
}

async function refusedByTheEngine(anna, bert, olga, late) {
  const one = await intent("one-1", { price: "100.01" });
  // 1,100.12 beside 1,100.11
  const cent = await intent("cent-1", { price: "100.01", quantity: "11.00005" });
  await anna.open(one);
  const forOther = await anna.sign(await anna.challengeOf(one));
  refused["for another action"] = await anna.give(cent, forOther);
  const changed = await anna.page.evaluate(async ({ one, cent }) => {
    const { challenge } = await import("/pages/passkey.js");
    const of = async (id) => (await (await fetch(`/api/v1/approvals/${id}/details`)).json()).approval;
    return challenge({ ...(await of(one)), action_digest: (await of(cent)).action_digest });
  }, { one, cent });
  refused["changed by a cent"] = await anna.give(one, await anna.sign(changed));

  await bert.open(one);
  const set = (isUserVerified) => bert.devtools.send("WebAuthn.setUserVerified",
    { authenticatorId: bert.authenticatorId, isUserVerified });
  await set(false);
  const unverified = await bert.sign(await bert.challengeOf(one), { verification: "discouraged" });
  await set(true);
  refused["unverified user"] = await bert.give(one, unverified);

  // the same passkey on a page of another origin that the browser lets use it
  const foreign = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<title>x</title>"));
  await new Promise((resolve) => foreign.listen(0, "127.0.0.1", resolve));
  await bert.page.goto(`http://localhost:${foreign.address().port}/`);
  const elsewhere = await bert.sign(await bert.challengeOf(one));
  foreign.closeAllConnections();
  foreign.close();
  const answer = await api(bert.token, "POST", `/api/v1/approvals/${one}/give`, { assertion: elsewhere });
  refused["wrong origin"] = answer.code;

  await olga.open(one);
  const before = await olga.sign(await olga.challengeOf(one));
  const revoked = await api(olga.token, "POST", `/api/v1/approvers/olga/passkeys/${before.credential_id}/revoke`,
    { reason: "lost" });
  assert.equal(revoked.status, "accepted", JSON.stringify(revoked));
  refused["revoked key"] = await olga.give(one, before);

  // a challenge says nothing of the time: the engine's clock does
  const signed = await anna.sign(await anna.challengeOf(late));
  const { expires_at } = await api(plan.owner, "GET", `/api/v1/approvals/${late}`);
  const left = Date.parse(expires_at) - Date.now() + 50;
  if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
  refused["late"] = await anna.give(late, signed);
}

(async () => {
  const browser = await chromium.launch({ executablePath: plan.chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  try {
    for (const hunter of ["hunter-solo", "hunter-pair"]) await send("agent", hunter, "register", { role: "hunter" });
    await bar();
    day = await bar();
    const [anna, bert, olga] = await Promise.all(["anna", "bert", "olga"].map((name) => Person.arrive(browser, name)));
    for (const person of [anna, bert, olga]) await person.enrol();
    const again = await api(plan.people.anna.link.split("#")[1], "POST", "/api/v1/enrolment/options", {});
    assert.equal(again.code, "unauthorized", "an invitation is good once");
    // made first, answered last
    const late = await intent("late-1");
    for (const person of [anna, bert, olga]) await person.logIn();
    await yesAndNo(anna, olga);
    await refusedOnThePage(anna, bert, olga);
    await refusedByTheEngine(anna, bert, olga, late);
  } finally {
    await browser.close();
  }
  assert.deepEqual(noted, []);
  console.log(JSON.stringify({ refused }));
})().catch((error) => {
  console.error(error);
  console.error(JSON.stringify({ refused, noted }));
  process.exit(1);
});
