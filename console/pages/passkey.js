// WebAuthn: options as the engine gives them, answers as it takes them, and the challenge of an
// approval computed here, from what the page shows.

export function bytes(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

export function text(buffer) {
  let plain = "";
  for (const byte of new Uint8Array(buffer)) plain += String.fromCharCode(byte);
  return btoa(plain).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Why no passkey can be used here; null if one can. */
export function impossible() {
  if (!window.isSecureContext) return "Passkeys need https, or the address localhost.";
  if (!window.PublicKeyCredential) return "This browser knows no passkeys.";
  return null;
}

const list = (keys) => (keys ?? []).map((key) => ({ ...key, id: bytes(key.id) }));

/** Makes a passkey; what `POST /api/v1/enrolment` takes as `registration`. */
export async function create({ publicKey }) {
  const made = await navigator.credentials.create({
    publicKey: {
      ...publicKey,
      challenge: bytes(publicKey.challenge),
      user: { ...publicKey.user, id: bytes(publicKey.user.id) },
      excludeCredentials: list(publicKey.excludeCredentials),
    },
  });
  return {
    client_data: text(made.response.clientDataJSON),
    attestation: text(made.response.attestationObject),
  };
}

/** Signs; what `POST …/give` takes as `assertion`. */
export async function sign({ publicKey }) {
  const given = await navigator.credentials.get({
    publicKey: {
      ...publicKey,
      challenge: bytes(publicKey.challenge),
      allowCredentials: list(publicKey.allowCredentials),
    },
  });
  return {
    credential_id: text(given.rawId),
    authenticator_data: text(given.response.authenticatorData),
    client_data: text(given.response.clientDataJSON),
    signature: text(given.response.signature),
  };
}

/** What the person did not do, in words. */
export function refusal(error) {
  const said = {
    NotAllowedError: "The authenticator was not unlocked, the request was cancelled, or it took too long. Nothing was sent.",
    InvalidStateError: "This authenticator has a passkey of yours already.",
    SecurityError: "The browser refuses passkeys at this address. Open the page at the address that sovereign status prints.",
    AbortError: "The request was cancelled. Nothing was sent.",
  };
  return said[error.name] ?? null;
}

/** Microseconds since 1970 of an RFC 3339 moment in UTC. */
export function micros(iso) {
  const [, seconds, fraction] = /^(.*?)(?:\.(\d+))?Z$/.exec(iso) ?? [];
  const whole = Date.parse(`${seconds}Z`);
  if (Number.isNaN(whole)) throw new Error("no moment");
  return BigInt(whole) * 1000n + BigInt((fraction ?? "").slice(0, 6).padEnd(6, "0"));
}

/** SHA-256 over what is agreed to: docs/FORMATS.md has the same in words. */
export async function challenge({ approval_id, action_digest, policy_version, expires_at }) {
  const encoder = new TextEncoder();
  const domain = encoder.encode("sovereign approval v1\0");
  const id = encoder.encode(approval_id);
  const message = new Uint8Array(domain.length + 2 + id.length + 32 + 4 + 8);
  const view = new DataView(message.buffer);
  let at = domain.length;
  message.set(domain);
  view.setUint16(at, id.length);
  message.set(id, at + 2);
  at += 2 + id.length;
  message.set(Uint8Array.from(action_digest.match(/../g), (pair) => Number.parseInt(pair, 16)), at);
  view.setInt32(at + 32, policy_version);
  view.setBigInt64(at + 36, micros(expires_at));
  return text(await crypto.subtle.digest("SHA-256", message));
}
