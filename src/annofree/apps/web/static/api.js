// Calls to the server.  Where it does not answer, or is full, they wait, say so, and ask again.
import { setBanner } from "./dom.js";

export class Problem extends Error {
  constructor(status, body) {
    super(body?.error ?? `The server answered ${status}.`);
    this.status = status;
    this.body = body;
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const unanswered = new Set();

export const imagePath = (id, what) => `api/images/${id.split("/").map(encodeURIComponent).join("/")}/${what}`;

// How many acts wait to be saved; the banner names it.
let waitingActs = () => 0;
export function countWaiting(count) {
  waitingActs = count;
}

function showWaiting(call, waits) {
  if (waits) unanswered.add(call);
  else if (!unanswered.delete(call)) return;
  const acts = waitingActs();
  const kept = acts ? ` ${acts === 1 ? "Your last act is" : `Your last ${acts} acts are`} kept here and sent as soon as it does.` : "";
  setBanner(unanswered.size ? `The server does not answer; trying again.${kept}` : "");
}

// The answer as JSON; `patient` calls try until the server answers, others fail at once.
export async function ask(path, { method = "GET", json, body, signal, patient = true } = {}) {
  const headers = method === "GET" ? {} : { "X-Annofree": "1" };
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  }
  const call = patient ? {} : "news"; // what is asked again and again is one call
  let late = 0;
  for (let wait = 0.25; ; wait = Math.min(2, wait * 1.5)) {
    let reply;
    try {
      reply = await fetch(path, { method, headers, body, signal, cache: "no-cache" });
    } catch (error) {
      if (error.name === "AbortError") {
        showWaiting(call, false);
        throw error;
      }
      showWaiting(call, true);
      if (!patient) throw new Problem(0, { error: "The server does not answer." });
      await pause(wait);
      continue;
    }
    showWaiting(call, false);
    if (reply.status === 429 || (reply.status === 503 && ++late < 3)) {
      if (!patient) throw new Problem(reply.status, null);
      await pause(Math.min(10, Number(reply.headers.get("Retry-After")) || 1));
      continue;
    }
    const answer = await reply.json().catch(() => null);
    if (!reply.ok) throw new Problem(reply.status, answer);
    return answer;
  }
}
