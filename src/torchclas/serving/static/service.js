// Requests to the service that the page comes from.
import { el } from "./dom.js";

const RETRIES = 5;
let token = kept();

function kept() {
  try {
    return sessionStorage.getItem("torchclas.token") ?? "";
  } catch {
    return "";
  }
}

/** What stood in the way of an answer: `kind` for the page, `message` and `hint` from the service. */
export class ServiceError extends Error {
  constructor(kind, message = "", hint = "") {
    super(message);
    this.kind = kind;
    this.hint = hint;
  }

  /** The key of what the page says of it. */
  get key() {
    const kinds = ["bad_image", "too_large", "overloaded", "deadline", "unauthorized", "unreachable"];
    if (this.kind === "unsupported_type") return "kind.unsupported";
    return kinds.includes(this.kind) ? `kind.${this.kind}` : "kind.other";
  }

  /** It, for people: what the page says in their language, and the service's own words. */
  node() {
    const words = [this.message, this.hint].filter(Boolean).join(": ");
    const detail = words ? el("span", { className: "faint", lang: "en", textContent: words }) : null;
    return el("p", { className: "why" }, el("strong", { t: this.key }), detail);
  }
}

/** Use a token from now on, in this tab alone. */
export function useToken(word) {
  token = word;
  try {
    sessionStorage.setItem("torchclas.token", word);
  } catch {
    // then it is asked for again
  }
}

const pause = (seconds, signal) =>
  new Promise((done, stop) => {
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), stop(signal.reason)), { once: true });
  });

/** Ask the service; where it has too much to do, ask again when it says. Throws ServiceError. */
export async function ask(path, { body, signal } = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  // Without a type of its own, a file of a wrong kind would be refused before anybody has looked into it.
  if (body) headers["Content-Type"] = "application/octet-stream";
  const request = { method: body ? "POST" : "GET", headers, body, signal };
  for (let tried = 0; ; tried++) {
    let answer;
    try {
      answer = await fetch(path.replace(/^\//, ""), request);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      // A file that is no longer there fails like a server that is not.
      throw new ServiceError("unreachable");
    }
    if (answer.ok) return answer;
    const retry = Number(answer.headers.get("Retry-After"));
    if ((answer.status === 429 || answer.status === 503) && retry && tried < RETRIES) {
      await pause(Math.min(retry, 10), signal);
      continue;
    }
    const problem = await answer.json().then((found) => found.error, () => ({}));
    throw new ServiceError(problem?.kind ?? "other", problem?.message ?? `${answer.status}`, problem?.hint ?? "");
  }
}
