// The page: the current user and conversation, and the actions of all controls.

import { Conversation } from "./conversation.js";
import { Drawer } from "./drawer.js";
import { make } from "./elements.js";
import { Search } from "./search.js";
import { deleteConversation, onSignIn, renameConversation } from "./server.js";
import { Sidebar, UNTITLED } from "./sidebar.js";
import {
  currentToken,
  currentUser,
  readDraft,
  saveDraft,
  saveToken,
  saveUser,
} from "./storage.js";
import { urlOf } from "./urls.js";
import { Announcer, Notice, ScrollFollower } from "./widgets.js";

const $ = (id) => document.getElementById(id);
const box = $("box");
const scroller = $("scroller");

const announcer = new Announcer($("spoken"));
const follower = new ScrollFollower({ scroller, content: $("column"), button: $("latest") });
const notice = new Notice($("notice"), restoreFocus);
const drawer = new Drawer({
  opener: $("open-list"),
  closer: $("close-list"),
  scrim: $("scrim"),
  drawer: $("sidebar"),
  main: $("main"),
});
const sidebar = new Sidebar({
  list: $("list"),
  note: $("list-note"),
  more: $("list-more"),
  onDelete: askToDelete,
});
const search = new Search({
  form: $("search"),
  box: $("search-box"),
  list: $("listed"),
  panel: $("found"),
  matches: $("matches"),
  note: $("found-note"),
  more: $("found-more"),
  getUser: () => user,
  onOpen: openMessage,
});

const NO_REPLY = "There is no reply to the last message.";
const CHECK_AGAIN = ["Check again", showConversationInUrl];
const TRY_AGAIN = ["Try again", showConversationInUrl];
const ASK_AGAIN = ["Try again", () => replaceReply(shown)];
const SHOW_SAVED = ["Show what was saved", showConversationInUrl];

let user = currentUser();
let shown = new Conversation(null, user);
let loading = null; // the AbortController of the load in progress, if any
let loadingDone = null; // the promise that resolves when that load ends
const replying = new Set(); // conversations whose reply is arriving, shown or not

// Navigation: the conversation's id is in the URL, so that reload, back and forward work.

function conversationIdInUrl() {
  return new URLSearchParams(location.hash.slice(1)).get("c") || null;
}

function navigate(id) {
  if (id !== conversationIdInUrl()) history.pushState(null, "", id === null ? urlWithoutConversation() : urlOf(id));
  showConversationInUrl();
}

function urlWithoutConversation() {
  return location.pathname + location.search;
}

function showConversationInUrl() {
  const id = conversationIdInUrl();
  loading?.abort();
  loading = null;
  notice.clear();
  const current = [...replying].find((one) => one.id !== null && one.id === id && one.user === user);
  show(current ?? new Conversation(id, user));
  if (!shown.isLoaded) loadingDone = load(shown);
}

async function load(conversation) {
  const controller = (loading = new AbortController());
  $("column").setAttribute("aria-busy", "true");
  try {
    await conversation.load(controller.signal);
    if (loading !== controller) return;
    if (conversation.isReplyingElsewhere) followReply(conversation);
    else if (conversation.isUnanswered) notice.showInfo(NO_REPLY, ASK_AGAIN);
  } catch (error) {
    if (loading !== controller) return;
    if (error.status === 404) {
      // The next message starts a new conversation.
      const typed = box.value;
      show(new Conversation(null, user));
      if (typed) setBox(typed);
      notice.showError(error.message);
    } else {
      notice.showError(error.message, TRY_AGAIN);
    }
  }
  if (loading !== controller) return;
  loading = null;
  $("column").removeAttribute("aria-busy");
  update();
  follower.follow();
}

function show(conversation) {
  shown = conversation;
  $("messages").replaceChildren(conversation.element);
  $("column").removeAttribute("aria-busy");
  box.value = readDraft(conversation);
  fitBox();
  update();
  follower.follow();
}

/** Update all parts of the page except the messages to match the conversation that is shown. */
function update() {
  const title = shown.title ?? sidebar.titleOf(shown.id) ?? UNTITLED;
  $("title").textContent = title;
  $("rename").hidden = shown.id === null;
  document.title = shown.id === null ? "Chatledger" : `${title} · Chatledger`;
  $("who").textContent = user;
  $("welcome").hidden = !shown.isLoaded || !shown.isEmpty;
  $("earlier").hidden = shown.before === null;
  if (!shown.canBeStopped && document.activeElement === $("stop")) restoreFocus();
  $("stop").hidden = !shown.canBeStopped;
  $("send").setAttribute("aria-disabled", String(shown.isReplying || !box.value.trim()));
  sidebar.markCurrent(shown.id);
}

async function refreshList() {
  await sidebar.refresh();
  shown.title = sidebar.titleOf(shown.id) ?? shown.title;
  update();
}

// Sending messages.

async function send() {
  const { id } = shown;
  if (!shown.isLoaded) {
    if (!loading) showConversationInUrl(); // loading failed before; try again
    await loadingDone;
  }
  const conversation = shown;
  const text = box.value;
  if (conversation.id !== id || !conversation.isLoaded) return;
  if (conversation.isReplying || !text.trim()) return;
  const isShown = () => conversation === shown;
  setBox("");
  notice.clear();
  announcer.announce("Waiting for the reply.");
  replying.add(conversation);
  const sending = conversation.send(text, {
    onWait() {
      const reason = "An earlier reply is still being written, or was interrupted.";
      if (isShown()) notice.showInfo(`${reason} Your message will be sent as soon as possible.`);
    },
    onStart() {
      if (isShown()) {
        notice.clear();
        if (conversationIdInUrl() !== conversation.id) history.pushState(null, "", urlOf(conversation.id));
        saveDraft({ id: null, user }, "");
        saveDraft(conversation, box.value);
      }
      update();
      refreshList();
    },
    onPiece: (piece) => isShown() && announcer.addPiece(piece),
  });
  update();
  follower.follow();
  try {
    await sending;
    if (isShown()) announcer.finish();
    refreshList();
  } catch (error) {
    if (!error.stored) restoreText(conversation, text);
    if (isShown() && error.stored) notice.showError(error.message, ASK_AGAIN, SHOW_SAVED);
    else if (isShown()) notice.showError(`${error.message} Your message is back in the box.`);
  } finally {
    replying.delete(conversation);
    update();
  }
}

/** Show the reply that the server is writing to the last message, if it is. */
async function followReply(conversation) {
  try {
    await receive(conversation, (callbacks) => conversation.follow(callbacks));
  } catch (error) {
    if (conversation !== shown) return;
    if (error.code === "no_reply") notice.showInfo(NO_REPLY, ASK_AGAIN);
    else notice.showError(error.message, TRY_AGAIN);
  }
}

/** Replace the last reply, or the one that is missing, with another one. */
async function replaceReply(conversation) {
  if (!conversation.isLoaded || conversation.isReplying) return;
  notice.clear();
  try {
    await receive(conversation, (callbacks) => conversation.regenerate(callbacks));
  } catch (error) {
    if (conversation === shown) notice.showError(error.message, ASK_AGAIN);
  }
}

async function replaceMessage(conversation, entry, text) {
  notice.clear();
  try {
    await receive(conversation, (callbacks) => conversation.edit(entry, text, callbacks));
  } catch (error) {
    if (conversation !== shown) return;
    if (error.stored) notice.showError(error.message, ASK_AGAIN, SHOW_SAVED);
    else notice.showError(`The message was not changed. ${error.message}`);
  }
}

/** Show a reply as it arrives, once `start` has been called with the callbacks for it. */
async function receive(conversation, start) {
  const isShown = () => conversation === shown;
  replying.add(conversation);
  const receiving = start({
    onStart: () => update(),
    onPiece: (piece) => isShown() && announcer.addPiece(piece),
  });
  update();
  follower.follow();
  try {
    await receiving;
    if (isShown()) announcer.finish();
    refreshList();
  } finally {
    replying.delete(conversation);
    update();
  }
}

// Actions on messages.

$("messages").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-action]");
  if (!button || shown.isReplying) return;
  if (button.dataset.action === "regenerate") replaceReply(shown);
  else askForEdit(shown, shown.entryOf(button.closest(".message")));
});

function askForEdit(conversation, entry) {
  $("edit-box").value = entry.text.textContent;
  $("edit-form").onsubmit = (event) => {
    event.preventDefault();
    const text = $("edit-box").value;
    if (!text.trim() || conversation !== shown || conversation.isReplying) return;
    $("edit-dialog").close();
    restoreFocus();
    replaceMessage(conversation, entry, text);
  };
  $("edit-dialog").showModal();
}

$("edit-no").addEventListener("click", () => $("edit-dialog").close());

// Renaming a conversation.

$("rename").addEventListener("click", () => {
  const { id } = shown;
  $("rename-box").value = $("title").textContent;
  $("rename-form").onsubmit = async (event) => {
    event.preventDefault();
    $("rename-dialog").close();
    restoreFocus();
    try {
      await renameConversation(id, { user, title: $("rename-box").value.trim() });
    } catch (error) {
      notice.showError(`The conversation was not renamed. ${error.message}`);
    }
    shown.title = null;
    refreshList();
  };
  $("rename-dialog").showModal();
  $("rename-box").select();
});
$("rename-no").addEventListener("click", () => $("rename-dialog").close());

/** Put text that could not be sent back into the box, in front of what was typed since. */
function restoreText(conversation, text) {
  const typed = conversation === shown ? box.value : readDraft(conversation);
  const both = typed ? `${text}\n${typed}` : text;
  if (conversation === shown) setBox(both);
  else saveDraft(conversation, both);
}

function setBox(text) {
  box.value = text;
  saveDraft(shown, text);
  fitBox();
}

function stop() {
  if (!shown.canBeStopped) return;
  const conversation = shown;
  conversation.stop().catch((error) => {
    if (conversation === shown) notice.showError(`The reply was not stopped. ${error.message}`);
  });
  announcer.announce("Stopped.");
  update();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
box.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter belongs to it (Safari reports keyCode 229).
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
box.addEventListener("input", () => {
  saveDraft(shown, box.value);
  fitBox();
  update();
});
$("stop").addEventListener("click", stop);

/** Grow the box with its text in browsers whose style sheets cannot. */
function fitBox() {
  if (CSS.supports("field-sizing", "content")) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

// Scrolling and earlier messages.

$("earlier").addEventListener("click", async ({ currentTarget: button }) => {
  const conversation = shown;
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await follower.keepInPlace(conversation.element.querySelector(".message"), async () => {
      await conversation.loadEarlier();
      const focused = document.activeElement === button;
      update();
      if (button.hidden && focused) scroller.focus({ preventScroll: true });
    });
    announcer.announce("Earlier messages loaded.");
  } catch (error) {
    if (conversation === shown) notice.showError(error.message);
  } finally {
    button.removeAttribute("aria-disabled");
  }
});
$("latest").addEventListener("click", () => {
  restoreFocus();
  follower.follow();
});
$("skip").addEventListener("click", () => box.focus());

/** Focus the box, except on touch screens, where that would open the keyboard. */
function restoreFocus() {
  if (matchMedia("(pointer: fine)").matches) box.focus();
  else scroller.focus({ preventScroll: true });
}

// The list of conversations.

$("list").addEventListener("click", (event) => {
  const link = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.target.closest("a");
  if (!link) return;
  drawer.close();
  restoreFocus();
});
for (const id of ["new", "new-here"]) {
  $(id).addEventListener("click", () => {
    drawer.close();
    navigate(null);
    box.focus();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (drawer.isOpen) drawer.close();
  else stop();
});

/** Show a conversation at the message with `seq`, or at its end if that is null. */
async function openMessage(id, seq) {
  drawer.close();
  if (id !== shown.id) navigate(id);
  if (seq === null) return restoreFocus();
  await loadingDone;
  let element = await findMessage(id, seq);
  if (!element && id === shown.id && !shown.isReplying) {
    // The message has come since the conversation was loaded.
    showConversationInUrl();
    await loadingDone;
    element = await findMessage(id, seq);
  }
  if (!element) return;
  follower.goTo(element);
  element.tabIndex = -1;
  element.focus({ preventScroll: true });
  element.classList.add("found");
  setTimeout(() => element.classList.remove("found"), 3000);
}

/** Return the element of the message, or null if it cannot be shown or another conversation is. */
async function findMessage(id, seq) {
  const conversation = shown;
  if (conversation.id !== id || !conversation.isLoaded) return null;
  try {
    const element = await conversation.findMessage(seq);
    if (conversation !== shown) return null;
    update();
    return element;
  } catch (error) {
    if (conversation === shown) notice.showError(error.message);
    return null;
  }
}

// Deleting a conversation.

function askToDelete(id, title) {
  const name = make("bdi", { textContent: title });
  $("delete-text").replaceChildren("“", name, "” and all its messages will be deleted permanently.");
  $("delete-yes").onclick = () => {
    $("delete-dialog").close();
    remove(id);
  };
  $("delete-dialog").showModal();
}

$("delete-no").addEventListener("click", () => $("delete-dialog").close());

async function remove(id) {
  for (const conversation of replying) if (conversation.id === id) conversation.stop().catch(() => {});
  try {
    await deleteConversation(id, { user });
  } catch (error) {
    // A 404 means that it is already deleted.
    if (error.status !== 404) return notice.showError(`The conversation was not deleted. ${error.message}`);
  }
  saveDraft({ id, user }, "");
  (sidebar.remove(id) ?? $("new")).focus();
  if (id === conversationIdInUrl()) {
    history.replaceState(null, "", urlWithoutConversation());
    showConversationInUrl();
  }
  announcer.announce("The conversation was deleted.");
  refreshList();
}

// The current user.

$("change-who").addEventListener("click", () => {
  if (currentToken()) return signIn("Paste the token of another user to switch.");
  $("who-box").value = user;
  $("who-dialog").showModal();
  $("who-box").select();
});
$("who-no").addEventListener("click", () => $("who-dialog").close());
$("who-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("who-box").value.trim();
  if (!name) return;
  $("who-dialog").close();
  drawer.close();
  restoreFocus();
  if (name !== user) switchUser(saveUser(name));
});

function switchUser(name) {
  user = name;
  search.clear();
  showList();
  // The new user may have access to the conversation in the URL even if the previous one did not.
  if (shown.id === null) showConversationInUrl();
  else navigate(null);
}

// Signing in, if the server requires it.

onSignIn(signIn);

function signIn(reason) {
  $("token-reason").textContent = reason;
  if (!$("token-dialog").open) $("token-dialog").showModal();
}

$("token-no").addEventListener("click", () => $("token-dialog").close());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const wasSignedOut = currentToken() === null;
  const typed = box.value;
  saveToken($("token-box").value.trim().replace(/^Bearer\s+/i, ""));
  $("token-box").value = "";
  $("token-dialog").close();
  drawer.close();
  restoreFocus();
  const name = currentUser();
  if (!wasSignedOut && name !== user) return switchUser(name);
  user = name;
  showList();
  if (wasSignedOut || !shown.isLoaded) showConversationInUrl();
  if (wasSignedOut && typed) setBox(typed);
});

async function showList() {
  await sidebar.showUser(user);
  update();
}

addEventListener("hashchange", () => {
  drawer.close();
  showConversationInUrl();
});
showList();
showConversationInUrl();
if (matchMedia("(pointer: fine)").matches) box.focus();
