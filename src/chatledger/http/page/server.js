// The client of the server's API; the messages of its errors are written for people.

import { currentToken } from "./storage.js";

let askToSignIn = () => {};

/** Set the function that is called, with a reason to show, whenever the server requires sign-in. */
export function onSignIn(ask) {
  askToSignIn = ask;
}

/** A failed request; `message` is a sentence to show to the user. */
export class ApiError extends Error {
  constructor(sentence, code, status = 0) {
    super(sentence);
    this.code = code;
    this.status = status;
  }
}

export async function listConversations({ user, limit, cursor, signal }) {
  return readJson(await request("conversations", { query: { user_id: user, limit, cursor }, signal }));
}

/** Read a page of messages, oldest first: the last ones, or the last ones before seq `before`. */
export async function readConversation(id, { user, limit, before, signal }) {
  const query = { user_id: user, limit, before };
  return (await readJson(await request(conversationPath(id), { query, signal }))).conversation;
}

export async function deleteConversation(id, { user }) {
  await request(conversationPath(id), { method: "DELETE", query: { user_id: user } });
}

/** Run a turn: yield `{name, data}` for `start`, each `piece` and `done`, and throw on `error`. */
export async function* streamTurn({ message, id, user, signal }) {
  const body = { message, user_id: user };
  if (id !== null) body.conversation_id = id;
  const response = await request("chat/stream", { method: "POST", body, signal });
  try {
    for await (const { name, data } of parseEvents(response.body)) {
      const value = JSON.parse(data);
      if (name === "error") throw new ApiError(value.error, value.code);
      yield { name, data: value };
      if (name === "done") return;
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    // A broken connection and a malformed response look the same to the user.
  }
  throw new ApiError("The connection was lost before the reply was complete.", "broken_off");
}

/** Parse the events of a `text/event-stream`, however its bytes are split into chunks. */
export async function* parseEvents(stream) {
  let name = "";
  let data = [];
  for await (const line of readLines(stream)) {
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

async function* readLines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      // Keep a CR at the very end: its LF may come with the next chunk.
      const complete = rest.split(/\r\n|\n|\r(?!$)/);
      rest = complete.pop();
      yield* complete;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Paths are relative, so that the page also works under a path prefix.
function conversationPath(id) {
  return `conversations/${encodeURIComponent(id)}`;
}

async function request(path, { method = "GET", query = {}, body, signal } = {}) {
  const parameters = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const search = parameters.length ? `?${new URLSearchParams(parameters)}` : "";
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  const token = currentToken();
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
    throw new ApiError("The server cannot be reached. Try again in a moment.", "unreachable");
  }
  if (response.ok) return response;
  const error = await errorFrom(response);
  if (error.status === 401) askToSignIn(error.message);
  throw error;
}

async function errorFrom(response) {
  const body = await response.json().catch(() => null);
  const sentence =
    typeof body?.error === "string"
      ? body.error
      : `The server failed with status ${response.status}. Try again in a moment.`;
  return new ApiError(sentence, body?.code ?? "unknown", response.status);
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server's response could not be read. Try again in a moment.", "unreadable");
  }
}
