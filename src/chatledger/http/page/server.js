// The server's API, and its answers in words for people.

import { knownToken } from "./memory.js";

let askToSignIn = () => {};

/** Call `ask` with a sentence whenever the server wants to know who one is. */
export function onSignIn(ask) {
  askToSignIn = ask;
}

/** What the server refused or could not do; `message` is a sentence to be shown as it is. */
export class Refused extends Error {
  constructor(sentence, code, status = 0) {
    super(sentence);
    this.code = code;
    this.status = status;
  }
}

export async function listConversations({ user, limit, cursor, signal }) {
  return json(await ask("conversations", { query: { user_id: user, limit, cursor }, signal }));
}

/** The newest messages, oldest first, or those before the place `before`. */
export async function readConversation(id, { user, limit, before, signal }) {
  const query = { user_id: user, limit, before };
  return (await json(await ask(pathOf(id), { query, signal }))).conversation;
}

export async function deleteConversation(id, { user }) {
  await ask(pathOf(id), { method: "DELETE", query: { user_id: user } });
}

/** One turn: yields `{name, data}` for `start`, then `piece`s, then `done`. An `error` is thrown. */
export async function* talk({ message, id, user, signal }) {
  const body = { message, user_id: user };
  if (id !== null) body.conversation_id = id;
  const response = await ask("chat/stream", { method: "POST", body, signal });
  try {
    for await (const { name, data } of events(response.body)) {
      const value = JSON.parse(data);
      if (name === "error") throw new Refused(value.error, value.code);
      yield { name, data: value };
      if (name === "done") return;
    }
  } catch (error) {
    if (error instanceof Refused || signal.aborted) throw error;
    // A broken connection or an answer that is not ours: for the reader it is the same.
  }
  throw new Refused("The connection broke before the reply was complete.", "broken_off");
}

/** The events of a `text/event-stream`, however its bytes are cut into chunks. */
export async function* events(stream) {
  let name = "";
  let data = [];
  for await (const line of lines(stream)) {
    if (line === "") {
      if (data.length) yield { name: name || "message", data: data.join("\n") };
      name = "";
      data = [];
      continue;
    }
    const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
}

async function* lines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      // A CR at the very end waits: the LF that belongs to it may come with the next chunk.
      const whole = rest.split(/\r\n|\n|\r(?!$)/);
      rest = whole.pop();
      yield* whole;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Addresses are relative, so that the page also works below a prefix.
function pathOf(id) {
  return `conversations/${encodeURIComponent(id)}`;
}

async function ask(path, { method = "GET", query = {}, body, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const token = knownToken();
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path + search, {
      method,
      headers,
      body: body && JSON.stringify(body),
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("The server cannot be reached. Try again in a moment.", "unreachable");
  }
  if (response.ok) return response;
  const refused = await refusal(response);
  if (refused.status === 401) askToSignIn(refused.message);
  throw refused;
}

async function refusal(response) {
  const answer = await response.json().catch(() => null);
  const sentence =
    typeof answer?.error === "string"
      ? answer.error
      : `The server could not answer (${response.status}). Try again in a moment.`;
  return new Refused(sentence, answer?.code ?? "unknown", response.status);
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server's answer could not be read. Try again in a moment.", "unreadable");
  }
}
