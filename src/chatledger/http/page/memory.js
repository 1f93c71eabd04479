// What this browser keeps: the user's id and, in each tab, what is typed and not yet sent, and the
// token that they signed in with.

const USER = "chatledger.user";
const TOKEN = "chatledger.token";
const lasting = storage("localStorage");
const ofThisTab = storage("sessionStorage");

/** The user this browser speaks for: who signed in, or one that it makes up at the first visit. */
export function knownUser() {
  return subjectOf(knownToken()) ?? lasting.getItem(USER) ?? rememberUser(newUser());
}

export function rememberUser(user) {
  lasting.setItem(USER, user);
  return user;
}

/** The token of who signed in; null where nobody did. */
export function knownToken() {
  return ofThisTab.getItem(TOKEN);
}

export function rememberToken(token) {
  ofThisTab.setItem(TOKEN, token);
}

/** Whom a token is about, for the page alone: the server checks it. Null where it does not say. */
function subjectOf(token) {
  try {
    const claims = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(claims), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)).sub ?? null;
  } catch {
    return null;
  }
}

/** What is typed in a conversation and not yet sent. */
export function draftOf(conversation) {
  return ofThisTab.getItem(draftKey(conversation)) ?? "";
}

export function keepDraft(conversation, text) {
  if (!text) return ofThisTab.removeItem(draftKey(conversation));
  try {
    ofThisTab.setItem(draftKey(conversation), text);
  } catch {
    // A text too long for the storage stays in the box alone.
  }
}

function draftKey({ id, user }) {
  return `chatledger.draft ${JSON.stringify([user, id])}`;
}

function newUser() {
  // Not crypto.randomUUID: it is missing where the page comes over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `web-${hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")}`;
}

/** A browser may forbid storage; then the page forgets, and works. */
function storage(name) {
  try {
    const found = window[name];
    found.setItem("chatledger.test", "");
    found.removeItem("chatledger.test");
    return found;
  } catch {
    const values = new Map();
    return {
      getItem: (key) => values.get(key) ?? null,
      setItem: (key, value) => values.set(key, value),
      removeItem: (key) => values.delete(key),
    };
  }
}
