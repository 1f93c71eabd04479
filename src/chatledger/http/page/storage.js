// Browser storage: the user's names and, separately for each tab, unsent drafts and the sign-in.

const USER_KEY = "chatledger.user";
const FORMER_USERS_KEY = "chatledger.former-users";
const MAX_FORMER_USERS = 10;
const TOKEN_KEY = "chatledger.token";
const SESSION_KEY = "chatledger.session";
const ATTEMPT_KEY = "chatledger.sign-in";
const DRAFT_PREFIX = "chatledger.draft ";
const browserStorage = openStorage("localStorage");
const tabStorage = openStorage("sessionStorage");

/** Return the signed-in user, or the id that this browser generated on its first visit. */
export function currentUser() {
  return subjectOf(currentToken()) ?? browserStorage.getItem(USER_KEY) ?? saveUser(makeUser());
}

export function saveUser(user) {
  browserStorage.setItem(USER_KEY, user);
  return user;
}

/** Return the names that this browser had before the current one, the last one first. */
export function formerUsers() {
  try {
    return JSON.parse(browserStorage.getItem(FORMER_USERS_KEY)) ?? [];
  } catch {
    return []; // something else has been stored there
  }
}

export function addFormerUser(user) {
  removeFormerUser(user);
  browserStorage.setItem(FORMER_USERS_KEY, JSON.stringify([user, ...formerUsers()].slice(0, MAX_FORMER_USERS)));
}

export function removeFormerUser(user) {
  browserStorage.setItem(FORMER_USERS_KEY, JSON.stringify(formerUsers().filter((name) => name !== user)));
}

/** Return the token of the signed-in user, or null. */
export function currentToken() {
  return currentSession()?.accessToken ?? tabStorage.getItem(TOKEN_KEY);
}

export function saveToken(token) {
  tabStorage.setItem(TOKEN_KEY, token);
}

/** Return the tokens that the issuer gave this page, as oidc.js makes them, or null. */
export function currentSession() {
  return readValue(SESSION_KEY);
}

export function saveSession(session) {
  tabStorage.setItem(SESSION_KEY, JSON.stringify(session));
}

/** Remove the tokens, because they are not valid any longer. */
export function endSession() {
  tabStorage.removeItem(SESSION_KEY);
}

/** Remove the tokens and what the user has typed. */
export function forgetSignIn() {
  endSession();
  const keys = Array.from({ length: tabStorage.length }, (_, index) => tabStorage.key(index));
  for (const key of keys) if (key.startsWith(DRAFT_PREFIX)) tabStorage.removeItem(key);
}

/** Keep what the page must know when the issuer sends the user back; it replaces earlier attempts. */
export function saveAttempt(attempt) {
  tabStorage.setItem(ATTEMPT_KEY, JSON.stringify(attempt));
}

/** Return the attempt to sign in, or null, and remove it: it can be used once. */
export function takeAttempt() {
  const attempt = readValue(ATTEMPT_KEY);
  tabStorage.removeItem(ATTEMPT_KEY);
  return attempt;
}

function readValue(key) {
  try {
    return JSON.parse(tabStorage.getItem(key));
  } catch {
    return null; // something else has been stored there
  }
}

/** Return the subject of a token, or null. It is only for display: the server verifies the token. */
function subjectOf(token) {
  try {
    const claims = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(claims), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)).sub ?? null;
  } catch {
    return null;
  }
}

/** Return the text that was typed in a conversation but not sent yet. */
export function readDraft(conversation) {
  return tabStorage.getItem(draftKey(conversation)) ?? "";
}

export function saveDraft(conversation, text) {
  if (!text) return tabStorage.removeItem(draftKey(conversation));
  try {
    tabStorage.setItem(draftKey(conversation), text);
  } catch {
    // A draft too long for the storage stays only in the box.
  }
}

function draftKey({ id, user }) {
  return DRAFT_PREFIX + JSON.stringify([user, id]);
}

function makeUser() {
  // Not crypto.randomUUID: browsers offer it only over HTTPS and on localhost.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `web-${hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5")}`;
}

/** Return the browser's storage of that name, or storage in memory if the browser forbids it. */
function openStorage(name) {
  try {
    const found = window[name];
    found.setItem("chatledger.test", "");
    found.removeItem("chatledger.test");
    return found;
  } catch {
    const values = new Map();
    return {
      get length() {
        return values.size;
      },
      key: (index) => [...values.keys()][index],
      getItem: (key) => values.get(key) ?? null,
      setItem: (key, value) => values.set(key, value),
      removeItem: (key) => values.delete(key),
    };
  }
}
