// The engine's HTTP API, with the session's cookie and its proof.

/** A failure as the engine describes it (RFC 9457). */
export class Problem extends Error {
  constructor(problem) {
    super(problem.message ?? problem.detail ?? "the request failed");
    this.problem = problem;
  }
}

let csrf = null;
/** Milliseconds by which the engine's clock is ahead of this one. */
let ahead = 0;

export function now() {
  return Date.now() + ahead;
}

async function ask(method, path, { body, token, headers } = {}) {
  const wanted = new Headers(headers);
  if (token) wanted.set("authorization", `Bearer ${token}`);
  else if (csrf && method !== "GET") wanted.set("x-csrf-token", csrf);
  if (body !== undefined) wanted.set("content-type", "application/json");
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: wanted,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: token ? "omit" : "same-origin",
      cache: "no-store",
      redirect: "error",
    });
  } catch {
    throw new Problem({
      code: "engine-not-running",
      title: "engine not running",
      message: "the engine does not answer",
      remedy: "start it with sovereign up, then try again",
    });
  }
  const date = Date.parse(answer.headers.get("date") ?? "");
  if (!Number.isNaN(date) && Math.abs(date - now()) > 2_000) ahead = date - Date.now();
  if (answer.status === 204) return null;
  const kind = answer.headers.get("content-type") ?? "";
  const value = kind.includes("json") ? await answer.json() : {};
  if (!answer.ok) throw new Problem({ title: `status ${answer.status}`, ...value, status: answer.status });
  return value;
}

export const get = (path) => ask("GET", path);
export const post = (path, body, more) => ask("POST", path, { body, ...more });

/** Opens a session with a token, which is not kept. */
export async function logIn(token) {
  const answer = await fetch("/api/v1/session", {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    credentials: "same-origin",
    redirect: "error",
  }).catch(() => null);
  if (!answer) throw new Problem({ title: "engine not running", message: "the engine does not answer" });
  const value = await answer.json();
  if (!answer.ok) throw new Problem(value);
  csrf = value.csrf_token;
  return value;
}

/** The session that the cookie stands for; null if there is none. */
export async function session() {
  try {
    const found = await get("/api/v1/session");
    csrf = found.csrf_token;
    return found;
  } catch (error) {
    if (error instanceof Problem && [401, 404].includes(error.problem.status)) return null;
    throw error;
  }
}

export async function logOut() {
  await ask("DELETE", "/api/v1/session");
  csrf = null;
}

/** Rows of a view, page by page, at most `most` of them; and the position that they are as of. */
export async function rows(path, most) {
  const found = [];
  let after = null;
  let position = null;
  do {
    const separator = path.includes("?") ? "&" : "?";
    const more = after === null ? "" : `&after=${encodeURIComponent(after)}`;
    const page = await get(`${path}${separator}limit=1000${more}`);
    found.push(...page.rows);
    position = position === null ? page.position : Math.min(position, page.position);
    after = page.next;
  } while (after !== null && found.length < most);
  return { rows: found, position, whole: after === null };
}
