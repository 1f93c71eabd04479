// The client of the server's API; the messages of its errors are written for people.

import { currentSession, currentToken } from "./storage.js";

// The most attempts to connect again, after pauses of 0.2 seconds and twice as long each time.
const RECONNECTIONS = 5;

// The most attempts to change metadata while other programs change the conversation.
const MAX_ATTEMPTS = 5;

const EVENTS = { Accept: "text/event-stream" };

let askToSignIn = () => {};
let signInDescription = null;

/** Set the function that is called, with the `ApiError`, whenever the server requires sign-in. */
export function onSignIn(ask) {
  askToSignIn = ask;
}

/**
 * A failed request; `message` is a sentence to show to the user, and `retryAfter` the seconds after
 * which the server wants to be asked again, if it has said so.
 */
export class ApiError extends Error {
  constructor(sentence, code, { status = 0, retryAfter } = {}) {
    super(sentence);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Return the models that a turn may ask for, and whether it may have a system prompt. */
export async function readModels() {
  return readJson(await request("models"));
}

/** Return how users sign in: `kind`, and for `oidc` the issuer and the page as its client. */
export async function readSignIn() {
  signInDescription ??= await readJson(await request("sign-in", { isPublic: true }));
  return signInDescription;
}

export async function listConversations({ user, limit, cursor, signal }) {
  return readJson(await request("conversations", { query: { user_id: user, limit, cursor }, signal }));
}

/** Search messages and titles for the words of `q`: return `{matches, cursor, complete}`. */
export async function searchConversations({ user, q, limit, cursor, signal }) {
  return readJson(await request("search", { query: { user_id: user, q, limit, cursor }, signal }));
}

/**
 * Read a page of messages, oldest first: the last ones, the last ones before seq `before`, or the first
 * ones after seq `after`.
 */
export async function readConversation(id, { user, limit, before, after, signal }) {
  const query = { user_id: user, limit, before, after };
  return (await readJson(await request(conversationPath(id), { query, signal }))).conversation;
}

export async function deleteConversation(id, { user }) {
  await request(conversationPath(id), { method: "DELETE", query: { user_id: user } });
}

/**
 * Run a turn: yield `{name, data}` for `start`, each `piece` and `done`, and throw on `error`. If the
 * connection is lost meanwhile, connect again; the server goes on with the reply. Another `start`
 * with `offset` 0 then means that the text comes from its beginning. `choices` is a promise of further
 * fields of the request.
 */
export async function* streamTurn({ message, id, user, choices, signal }) {
  const body = { message, user_id: user, ...(await choices) };
  if (id !== null) body.conversation_id = id;
  yield* readReply(await request("chat/stream", { method: "POST", body, signal }), { user, signal });
}

/** Yield the events of the last reply of the conversation, as `streamTurn` does. */
export async function* followReply({ id, user, signal }) {
  yield* readReply(await requestReply({ id, user, signal }), { id, user, signal });
}

/**
 * Replace the last reply with another one: yield its events, as `streamTurn` does. Throw an error with
 * status 412 if the last message is not the one at `lastSeq`, unless that is undefined.
 */
export async function* regenerateReply({ id, lastSeq, user, choices, signal }) {
  const condition = lastSeq === undefined ? {} : { "If-Match": await versionThatEndsWith(id, { lastSeq, user, signal }) };
  const headers = { ...EVENTS, ...condition };
  const options = { method: "POST", body: { user_id: user, ...(await choices) }, headers, signal };
  yield* readReply(await request(`${conversationPath(id)}/regenerate`, options), { id, user, signal });
}

/** Replace the user's message at `seq` and all after it: yield the events of the reply to it. */
export async function* editMessage({ id, seq, message, user, choices, signal }) {
  const body = { message, user_id: user, ...(await choices) };
  const options = { method: "PUT", body, headers: EVENTS, signal };
  yield* readReply(await request(`${conversationPath(id)}/messages/${seq}`, options), { id, user, signal });
}

/** Change the title, and return the conversation. */
export async function renameConversation(id, { user, title }) {
  const options = { method: "PATCH", body: { title, user_id: user } };
  return (await readJson(await request(conversationPath(id), options))).conversation;
}

/** Give a new conversation its metadata, also if the page is closed meanwhile, and return the conversation. */
export async function setMetadata(id, { user, metadata }) {
  const options = { method: "PATCH", body: { metadata, user_id: user }, keepalive: true };
  return (await readJson(await request(conversationPath(id), options))).conversation;
}

/**
 * Set the keys in `changes` of the conversation's metadata, or remove those that are undefined. Other
 * keys stay, also those that another program changes meanwhile. Return the conversation.
 */
export async function changeMetadata(id, { user, changes }) {
  const path = conversationPath(id);
  for (let attempts = 1; ; attempts++) {
    const { conversation, version } = await readVersion(id, { user });
    const { metadata } = conversation;
    const body = { metadata: { ...metadata, ...changes }, user_id: user };
    try {
      const options = { method: "PATCH", body, headers: { "If-Match": version } };
      return (await readJson(await request(path, options))).conversation;
    } catch (error) {
      if (error.status !== 412 || attempts === MAX_ATTEMPTS) throw error;
    }
  }
}

async function versionThatEndsWith(id, { lastSeq, user, signal }) {
  const { conversation, version } = await readVersion(id, { user, signal });
  if (conversation.messages.at(-1)?.seq === lastSeq) return version;
  throw new ApiError("The conversation has changed since it was loaded.", "precondition_failed", { status: 412 });
}

/** Return the conversation, with its last message, and its `ETag`. */
async function readVersion(id, { user, signal }) {
  const response = await request(conversationPath(id), { query: { user_id: user, limit: 1 }, signal });
  const { conversation } = await readJson(response);
  // A proxy that compresses makes the tag a weak one.
  return { conversation, version: response.headers.get("ETag").replace(/^W\//, "") };
}

/** Return the conversation as a file, a Blob, and its name; `format` is `json` or `markdown`. */
export async function exportConversation(id, { user, format }) {
  const response = await request(`${conversationPath(id)}/export`, { query: { user_id: user, format } });
  const header = response.headers.get("Content-Disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/.exec(header)?.[1];
  const name = encoded ? decodeURIComponent(encoded) : /filename="([^"]+)"/.exec(header)?.[1];
  try {
    return { file: await response.blob(), name };
  } catch {
    throw new ApiError("The connection was lost before the file was complete. Try again.", "broken_off");
  }
}

/** Create a conversation from a file, a Blob, that was exported as JSON, and return it. */
export async function importConversation(file, { user }) {
  const options = { method: "POST", query: { user_id: user }, body: file };
  return (await readJson(await request("conversations/import", options))).conversation;
}

/** Stop the reply that the server is writing; the part written so far is stored. */
export async function stopReply(id, { user }) {
  await request(`${conversationPath(id)}/stop`, { method: "POST", body: { user_id: user } });
}

function requestReply({ id, user, lastEventId, signal }) {
  const headers = lastEventId ? { "Last-Event-ID": lastEventId } : {};
  return request(`${conversationPath(id)}/reply`, { query: { user_id: user }, headers, signal });
}

async function* readReply(response, { id, user, signal }) {
  let lastEventId = null;
  for (let failures = 0; ; ) {
    try {
      for await (const event of parseEvents(response.body)) {
        const data = JSON.parse(event.data);
        if (event.name === "error") throw new ApiError(data.error, data.code);
        id = data.conversation_id ?? id;
        lastEventId = event.id ?? lastEventId;
        failures = 0;
        yield { name: event.name, data };
        if (event.name === "done") return;
      }
    } catch (error) {
      if (error instanceof ApiError || signal.aborted) throw error;
      // A broken connection and a malformed response look the same to the user.
    }
    response = null;
    while (response === null) {
      if (!lastEventId || ++failures > RECONNECTIONS) {
        throw new ApiError("The connection was lost before the reply was complete.", "broken_off");
      }
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** (failures - 1)));
      await untilOnline(signal);
      try {
        response = await requestReply({ id, user, lastEventId, signal });
      } catch (error) {
        if (error.code !== "unreachable") throw error;
      }
    }
  }
}

/** Wait while the browser has no network. */
async function untilOnline(signal) {
  if (navigator.onLine || signal.aborted) return;
  await new Promise((resolve) => {
    addEventListener("online", resolve, { once: true });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** Parse the events of a `text/event-stream`, however its bytes are split into chunks. */
export async function* parseEvents(stream) {
  let name = "";
  let id = null;
  let data = [];
  for await (const line of readLines(stream)) {
    if (line === "") {
      if (data.length) yield { name: name || "message", data: data.join("\n"), id };
      name = "";
      data = [];
      continue;
    }
    const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
    else if (field === "id") id = value;
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

async function request(path, { isPublic = false, ...options } = {}) {
  try {
    return await send(path, isPublic ? null : await validToken(), options);
  } catch (error) {
    // The server's sentence is for programs.
    if (error.code === "not_signed_in") error.message = "Sign in to use this chatbot.";
    if (error.status === 401) askToSignIn(error);
    throw error;
  }
}

/** Return a token, or null; one that has expired is renewed first. */
async function validToken() {
  const session = currentSession();
  if (session === null || Date.now() < (session.renewAt ?? Infinity)) return currentToken();
  return (await import("./oidc.js")).renewToken(session.accessToken);
}

/** Send a request; if the server rejects the token, send it again with a renewed one. */
async function send(path, token, options) {
  try {
    return await sendOnce(path, token, options);
  } catch (error) {
    if (error.status !== 401 || token === null || token !== currentSession()?.accessToken) throw error;
    let renewed;
    try {
      renewed = await (await import("./oidc.js")).renewToken(token);
    } catch (failed) {
      throw failed.status === 401 ? error : failed;
    }
    return sendOnce(path, renewed, options);
  }
}

async function sendOnce(path, token, { method = "GET", query = {}, headers: own = {}, body, signal, keepalive }) {
  const parameters = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const search = parameters.length ? `?${new URLSearchParams(parameters)}` : "";
  const headers = { Accept: "application/json", ...own };
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path + search, {
      method,
      headers,
      body: body instanceof Blob ? body : body && JSON.stringify(body),
      cache: "no-store",
      signal,
      keepalive,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached. Try again in a moment.", "unreachable");
  }
  if (response.ok) return response;
  throw await errorFrom(response);
}

async function errorFrom(response) {
  const body = await response.json().catch(() => null);
  const sentence =
    typeof body?.error === "string"
      ? body.error
      : `The server failed with status ${response.status}. Try again in a moment.`;
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  return new ApiError(sentence, body?.code ?? "unknown", { status: response.status, retryAfter });
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server's response could not be read. Try again in a moment.", "unreadable");
  }
}
