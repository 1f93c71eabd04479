// The page: the current user and conversation, and the actions of all controls.

import { Conversation } from "./conversation.js";
import { Drawer } from "./drawer.js";
import { make } from "./elements.js";
import { chooseFile, importFile, print, saveAsFile } from "./exporting.js";
import { makeIcon, Menu } from "./menu.js";
import { readOffer } from "./offer.js";
import { Search } from "./search.js";
import {
  changeMetadata,
  deleteConversation,
  listConversations,
  onSignIn,
  readSignIn,
  renameConversation,
  setMetadata,
} from "./server.js";
import { Sidebar, UNTITLED } from "./sidebar.js";
import {
  addFormerUser,
  currentSession,
  currentToken,
  currentUser,
  formerUsers,
  readDraft,
  removeFormerUser,
  saveDraft,
  saveToken,
  saveUser,
  takeAttempt,
} from "./storage.js";
import { onChangeInOtherTab, tellTabs } from "./tabs.js";
import { urlOf } from "./urls.js";
import { Announcer, Notice, ScrollFollower } from "./widgets.js";

const $ = (id) => document.getElementById(id);
const box = $("box");
const scroller = $("scroller");

const announcer = new Announcer($("spoken"));
const follower = new ScrollFollower({
  scroller,
  content: $("column"),
  button: $("latest"),
  isEnd: () => shown.showsEnd,
});
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
  onMenu: showMenu,
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
const menu = new Menu($("menu"));

const NO_REPLY = "There is no reply to the last message.";
const TRY_AGAIN = ["Try again", showConversationInUrl];
const ASK_AGAIN = ["Try again", () => replaceReply(shown)];
const SHOW_SAVED = ["Show what was saved", showConversationInUrl];

let user = currentUser();
let isSignedIn = currentToken() !== null; // it stays true when the sign-in ends: the user is still shown
let session = currentSession(); // the last one, if any
let shown = new Conversation(null, user);
let offer = null; // what the server offers, once it has said so
let loading = null; // the AbortController of the load in progress, if any
let loadingDone = null; // the promise that resolves when that load ends
const replying = new Set(); // conversations whose reply is arriving, shown or not
const changedElsewhere = new WeakSet(); // those that have changed elsewhere since, while their reply was arriving
const readingMore = new Map(); // for conversations whose earlier or later messages are being read: a promise of the end
const failedToRead = new Set(); // those whose messages are read only when the user asks again

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
  else if (!offer) loadOffer().catch(() => {}); // a turn asks again
}

async function load(conversation) {
  const controller = (loading = new AbortController());
  $("column").setAttribute("aria-busy", "true");
  try {
    await Promise.all([conversation.load(controller.signal), loadOffer()]);
    if (loading !== controller) return;
    showState(conversation);
  } catch (error) {
    if (loading !== controller) return;
    if (error.status === 404) {
      // The next message starts a new conversation.
      const typed = box.value;
      show(new Conversation(null, user));
      if (typed) setBox(typed);
      notice.showError(error.message);
      refreshList();
    } else {
      notice.showError(error.message, [...TRY_AGAIN, error.retryAfter]);
    }
  }
  if (loading !== controller) return;
  loading = null;
  $("column").removeAttribute("aria-busy");
  update();
  follower.follow();
}

/** Follow the reply that is being written elsewhere, or say what is wrong with a conversation that was loaded. */
function showState(conversation) {
  const missing = describeMissingModel(conversation);
  if (conversation.isReplyingElsewhere) followReply(conversation);
  else if (conversation.isUnanswered) notice.showInfo(`${NO_REPLY} ${missing}`.trim(), ASK_AGAIN);
  else if (missing) notice.showInfo(missing);
}

function show(conversation) {
  menu.close();
  shown = conversation;
  const hadFocus = $("messages").contains(document.activeElement);
  $("messages").replaceChildren(conversation.element);
  if (hadFocus) restoreFocus();
  $("column").removeAttribute("aria-busy");
  box.value = readDraft(conversation);
  fitBox();
  showLatest();
}

/** Update all parts of the page except the messages to match the conversation that is shown. */
function update() {
  const title = shown.title ?? sidebar.titleOf(shown.id) ?? UNTITLED;
  $("title").textContent = title;
  $("rename").hidden = shown.id === null;
  const allowsPrompt = offer?.allows_system_prompt === true;
  $("more").hidden = shown.id === null && !allowsPrompt;
  $("prompt-open").hidden = !allowsPrompt || !shown.systemPrompt;
  $("prompt-start").textContent = shown.systemPrompt.slice(0, 200);
  document.title = shown.id === null ? "Chatledger" : `${title} · Chatledger`;
  $("who").textContent = nameOfUser();
  $("welcome").hidden = !shown.isLoaded || !shown.isEmpty;
  $("earlier").hidden = shown.before === null;
  $("later").hidden = !shown.hasLater;
  if (!shown.canBeStopped && document.activeElement === $("stop")) restoreFocus();
  $("stop").hidden = !shown.canBeStopped;
  $("send").setAttribute("aria-disabled", String(shown.isReplying || !box.value.trim()));
  $("model").hidden = offer === null || offer.models.length < 2;
  if (offer) $("model").value = shown.modelIn(offer);
  sidebar.markCurrent(shown.id);
}

/** Return the user's name for people, if the issuer has told it. */
function nameOfUser() {
  session = currentSession() ?? session;
  return session?.name ?? user;
}

async function refreshList() {
  await sidebar.refresh();
  updateTitle();
}

/** Show a conversation as it is after a change of its title or metadata. */
function showDescription(conversation) {
  sidebar.update(conversation);
  for (const one of [shown, ...replying]) {
    if (one.id === conversation.conversation_id) one.metadata = conversation.metadata;
  }
  updateTitle();
}

function updateTitle() {
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
  if (!shown.showsEnd) await showLatest();
  const conversation = shown;
  const text = box.value;
  if (conversation.id !== id || !conversation.isLoaded || !conversation.showsEnd) return;
  if (conversation.isReplying || !text.trim()) return;
  const isShown = () => conversation === shown;
  setBox("");
  notice.clear();
  const isNew = conversation.id === null;
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
      tellTabs(conversation.user, conversation.id, "started");
      if (isNew) saveFirstChoices(conversation);
      refreshList();
    },
    onPiece: (piece) => isShown() && announcer.addPiece(piece),
    async onBegunAnew() {
      changedElsewhere.add(conversation);
      if (!isShown() || conversation.isReplying) return;
      showMissedChange(conversation);
      await loadingDone;
      if (conversation.id !== shown.id) return;
      notice.showInfo("The conversation had been deleted on another device. Your message has begun it anew.");
    },
  });
  update();
  follower.follow();
  try {
    await sending;
    if (isShown()) announcer.finish();
    tellTabs(conversation.user, conversation.id, "ended");
    showMissedChange(conversation);
    refreshList();
  } catch (error) {
    if (!error.stored) restoreText(conversation, text);
    if (isShown() && error.code === "not_found") {
      replying.delete(conversation);
      showConversationInUrl();
    } else if (isShown() && error.stored) notice.showError(error.message, ASK_AGAIN, SHOW_SAVED);
    else if (isShown()) {
      const sendAgain = error.retryAfter ? [["Try again", send, error.retryAfter]] : [];
      notice.showError(`${error.message} Your message is back in the box.`, ...sendAgain);
    }
  } finally {
    replying.delete(conversation);
    update();
  }
}

/** Load the conversation again if it has changed elsewhere while a reply was arriving here. */
function showMissedChange(conversation) {
  if (!changedElsewhere.delete(conversation) || conversation !== shown) return;
  replying.delete(conversation);
  showConversationInUrl();
}

/** Show the reply that the server is writing to the last message, if it is. */
async function followReply(conversation) {
  try {
    await receive(conversation, (callbacks) => conversation.follow(callbacks));
  } catch (error) {
    if (conversation !== shown) return;
    if (error.code === "no_reply") notice.showInfo(NO_REPLY, ASK_AGAIN);
    else notice.showError(error.message, [...TRY_AGAIN, error.retryAfter]);
  }
}

/** Replace the last reply, or the one that is missing, with another one. */
async function replaceReply(conversation) {
  if (!conversation.showsEnd) await showLatest();
  if (!conversation.isLoaded || !conversation.showsEnd || conversation.isReplying) return;
  notice.clear();
  let failure = null;
  try {
    await receive(conversation, (callbacks) => conversation.regenerate(callbacks), tellStart);
  } catch (error) {
    failure = error;
  }
  if (conversation !== shown) return;
  const isGone = failure?.code === "not_found";
  const hasChanged = failure?.status === 412; // on another device
  if (conversation.lacksReply || hasChanged || isGone) {
    showConversationInUrl(); // if a reply is missing, the server has put the former one back
    await loadingDone;
    if (conversation.id !== shown.id) return;
  }
  if (hasChanged) notice.showInfo("The conversation had changed on another device. This is how it is now.");
  else if (failure) notice.showError(failure.message, [...ASK_AGAIN, failure.retryAfter]);
}

async function replaceMessage(conversation, entry, text) {
  notice.clear();
  try {
    await receive(conversation, (callbacks) => conversation.edit(entry, text, callbacks), onEdited);
  } catch (error) {
    if (!error.stored) restoreText(conversation, text);
    if (conversation !== shown) return;
    if (error.code === "not_found") {
      showConversationInUrl();
      await loadingDone;
      if (conversation.id !== shown.id) return;
    }
    if (error.stored) notice.showError(error.message, ASK_AGAIN, SHOW_SAVED);
    else notice.showError(`The message was not changed. ${error.message} What you wrote is in the box.`);
  }
}

function tellStart({ user, id }) {
  tellTabs(user, id, "started");
}

function onEdited(conversation, { branch_id: branch }) {
  tellStart(conversation);
  // The copy has the metadata of the conversation, but only one of the two should stay on top.
  if (!branch || !sidebar.isPinned(conversation.id)) return;
  changeMetadata(branch, { user: conversation.user, changes: { pinned: undefined } }).then(refreshList, () => {});
}

/**
 * Show a reply as it arrives, once `start` has been called with the callbacks for it, and call
 * `onStart` with the conversation and the event's data when the server has stored what it replies to.
 */
async function receive(conversation, start, onStart = () => {}) {
  const isShown = () => conversation === shown;
  replying.add(conversation);
  const receiving = start({
    onStart(data) {
      update();
      onStart(conversation, data);
    },
    onPiece: (piece) => isShown() && announcer.addPiece(piece),
  });
  update();
  follower.follow();
  try {
    await receiving;
    if (isShown()) announcer.finish();
    showMissedChange(conversation);
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
  if (button.dataset.action === "regenerate") {
    restoreFocus(); // the button is hidden while the reply is written
    replaceReply(shown);
  } else askForEdit(shown, shown.entryOf(button.closest(".message")));
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

// The model and the system prompt of a conversation, which are kept in its metadata.

/** Show what the server offers. */
async function loadOffer() {
  const isFirst = offer === null;
  offer = await readOffer();
  if (!isFirst) return;
  $("model").replaceChildren(...offer.models.map(({ id }) => make("option", { value: id, textContent: id })));
  update();
}

/** Return a sentence if the model that was chosen for the conversation is not offered, else "". */
function describeMissingModel(conversation) {
  const { model } = conversation.metadata;
  const used = conversation.modelIn(offer);
  return typeof model !== "string" || model === used ? "" : `The model ${model} is no longer offered, so ${used} replies.`;
}

$("model").addEventListener("change", ({ currentTarget: { value } }) => {
  if (describeMissingModel(shown)) notice.clear();
  choose(shown, { model: value });
});

// The metadata of a conversation may have 4 KiB, and other programs need some of them.
const MAX_PROMPT_BYTES = 3000;

function askForPrompt(conversation) {
  const promptBox = $("prompt-box");
  promptBox.value = conversation.systemPrompt;
  promptBox.oninput = () => {
    const bytes = new TextEncoder().encode(JSON.stringify(promptBox.value.trim())).length - 2; // without the quotes
    const tooMany = bytes > MAX_PROMPT_BYTES;
    promptBox.setCustomValidity(tooMany ? `Shorten it by ${Math.ceil((1 - MAX_PROMPT_BYTES / bytes) * 100)} %.` : "");
  };
  promptBox.oninput();
  $("prompt-form").onsubmit = (event) => {
    event.preventDefault();
    $("prompt-dialog").close();
    restoreFocus();
    choose(conversation, { system_prompt: promptBox.value.trim() || undefined });
    announcer.announce(conversation.systemPrompt ? "The system prompt was saved." : "There is no system prompt.");
  };
  $("prompt-dialog").showModal();
}

$("prompt-open").addEventListener("click", () => askForPrompt(shown));
$("prompt-no").addEventListener("click", () => $("prompt-dialog").close());

/** Change what the user has chosen for a conversation, from the next turn on. */
function choose(conversation, changes) {
  conversation.metadata = { ...conversation.metadata, ...changes };
  update();
  // The choices for a new conversation are saved once it exists.
  const { id, user } = conversation;
  if (id !== null) save(() => changeMetadata(id, { user, changes }));
}

let saved = Promise.resolve(); // once all choices so far are saved

function saveFirstChoices({ id, user, metadata }) {
  if (Object.keys(metadata).length) save(() => setMetadata(id, { user, metadata }));
}

/** Save choices after those before them, so that the last ones stay; `change` returns the conversation. */
function save(change) {
  const owner = user;
  const saving = (saved = saved.then(async () => {
    try {
      const conversation = await change();
      if (owner === user && saved === saving) showDescription(conversation);
      tellTabs(owner, conversation.conversation_id, "described", conversation);
    } catch (error) {
      notice.showError(`The choice was not saved. ${error.message}`);
    }
  }));
}

// The menu of the conversation: its system prompt, exporting and printing; and importing.

$("more").append(makeIcon("more"));
$("more").addEventListener("click", ({ currentTarget: button }) => {
  const conversation = shown;
  const prompt = { label: "System prompt…", icon: "prompt", act: () => askForPrompt(conversation) };
  const beginning = { label: "Go to the beginning", icon: "beginning", act: () => showBeginning(conversation) };
  const ofStored = [
    { label: "Export as Markdown", icon: "save", act: () => exportAs("markdown", conversation) },
    { label: "Export as JSON", icon: "save", act: () => exportAs("json", conversation) },
    { label: "Print", icon: "print", act: () => printAll(conversation) },
  ];
  const rename = { label: "Rename", icon: "rename", act: () => $("rename").click() };
  menu.toggle(button, [
    ...(conversation.id === null || $("rename").checkVisibility() ? [] : [rename]),
    ...(offer?.allows_system_prompt ? [prompt] : []),
    ...(conversation.id === null ? [] : [beginning, ...ofStored]),
  ]);
});

async function exportAs(format, { id }) {
  try {
    await saveAsFile(id, { user, format });
    announcer.announce("The conversation was exported.");
  } catch (error) {
    notice.showError(`The conversation was not exported. ${error.message}`);
  }
}

async function printAll(conversation) {
  try {
    await print(conversation);
  } catch (error) {
    notice.showError(`The conversation was not printed. ${error.message}`);
  }
  update();
}

$("import").addEventListener("click", () => {
  $("settings-dialog").close();
  chooseFile(importChosen);
});

async function importChosen(file) {
  notice.clear();
  announcer.announce("The conversation is being imported.");
  try {
    const id = await importFile(file, { user });
    drawer.close();
    navigate(id);
    restoreFocus();
    announcer.announce("The conversation was imported.");
    tellTabs(user, id, "ended");
    refreshList();
  } catch (error) {
    drawer.close();
    notice.showError(`The file was not imported. ${error.message}`);
  }
}

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

/** Show the messages before or after those that are shown, unless some are being read; return whether that was done. */
function showMore(conversation, { earlier }) {
  const reading = readingMore.get(conversation) ?? readMore(conversation, { earlier });
  readingMore.set(conversation, reading);
  return reading;
}

async function readMore(conversation, { earlier }) {
  try {
    const showThem = await (earlier ? conversation.readEarlier() : conversation.readLater());
    if (conversation !== shown) return false;
    const focused = document.activeElement;
    follower.keepInPlace(() => {
      showThem();
      update();
    });
    if (focused.hidden || !focused.isConnected) scroller.focus({ preventScroll: true });
    failedToRead.delete(conversation);
    return true;
  } catch (error) {
    failedToRead.add(conversation);
    const again = ["Try again", () => showMore(conversation, { earlier }), error.retryAfter];
    if (conversation === shown) notice.showError(error.message, again);
    return false;
  } finally {
    readingMore.delete(conversation);
  }
}

/** Show more messages before the reader comes to the first or the last of those that are shown. */
async function showNearby() {
  const conversation = shown;
  if (failedToRead.has(conversation) || readingMore.has(conversation)) return;
  const { scrollTop, scrollHeight, clientHeight } = scroller;
  const earlier = conversation.before !== null && scrollTop < clientHeight;
  const later = conversation.hasLater && scrollHeight - scrollTop < 2 * clientHeight;
  if ((earlier || later) && (await showMore(conversation, { earlier }))) showNearby();
}

scroller.addEventListener("scroll", showNearby, { passive: true });
for (const [id, words] of [["earlier", "Earlier messages loaded."], ["later", "Later messages loaded."]]) {
  $(id).addEventListener("click", async () => {
    if (await showMore(shown, { earlier: id === "earlier" })) announcer.announce(words);
  });
}

async function showBeginning(conversation) {
  try {
    const showIt = conversation.before === null ? () => {} : await conversation.readBeginning();
    if (conversation !== shown) return;
    showIt();
  } catch (error) {
    if (conversation === shown) notice.showError(error.message);
    return;
  }
  update();
  follower.goToTop();
  scroller.focus({ preventScroll: true });
  announcer.announce("The beginning of the conversation.");
}

/** Show the last messages, which may have to be read again. */
async function showLatest() {
  const conversation = shown;
  if (!conversation.showsEnd) {
    try {
      await conversation.returnToEnd();
    } catch (error) {
      if (conversation === shown) notice.showError(error.message, ["Try again", showLatest, error.retryAfter]);
      return;
    }
    if (conversation !== shown) return;
    if (!conversation.isReplying) showState(conversation);
  }
  update();
  follower.follow();
}

$("latest").addEventListener("click", () => {
  restoreFocus();
  showLatest();
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

/** Show the actions for the conversation of a row of the list. */
function showMenu({ id, title, isPinned, isArchived, button }) {
  const pin = isPinned
    ? { label: "Unpin", icon: "unpin", act: () => mark(id, { pinned: undefined }) }
    : { label: "Pin", icon: "pin", act: () => mark(id, { pinned: true }) };
  const archive = isArchived
    ? { label: "Unarchive", icon: "unarchive", act: () => mark(id, { archived: undefined }) }
    : { label: "Archive", icon: "archive", act: () => mark(id, { archived: true }) };
  menu.toggle(button, [
    { label: "Rename", icon: "rename", act: () => askForTitle(id, title, () => button.focus()) },
    ...(isArchived ? [] : [pin]),
    archive,
    { label: "Delete", icon: "bin", className: "danger", act: () => askToDelete(id, title) },
  ]);
}

async function mark(id, changes) {
  const neighbour = sidebar.neighbourOf(id);
  try {
    const conversation = await changeMetadata(id, { user, changes });
    showDescription(conversation);
    tellTabs(user, id, "described", conversation);
  } catch (error) {
    return notice.showError(`The conversation was not changed. ${error.message}`);
  }
  const focused = document.activeElement;
  if (focused === document.body || !focused.checkVisibility()) (neighbour ?? $("new")).focus();
  const [name, value] = Object.entries(changes)[0];
  announcer.announce(`The conversation is ${value ? name : `no longer ${name}`}.`);
}

// Renaming a conversation.

$("rename").addEventListener("click", () => askForTitle(shown.id, $("title").textContent, restoreFocus));

function askForTitle(id, title, focusAfterwards) {
  $("rename-box").value = title;
  $("rename-form").onsubmit = (event) => {
    event.preventDefault();
    $("rename-dialog").close();
    focusAfterwards();
    rename(id, $("rename-box").value.trim());
  };
  $("rename-dialog").showModal();
  $("rename-box").select();
}

async function rename(id, title) {
  try {
    const conversation = await renameConversation(id, { user, title });
    showDescription(conversation);
    tellTabs(user, id, "described", conversation);
  } catch (error) {
    notice.showError(`The conversation was not renamed. ${error.message}`);
  }
}

$("rename-no").addEventListener("click", () => $("rename-dialog").close());

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
  tellTabs(user, id, "deleted");
  const neighbour = sidebar.neighbourOf(id);
  forget(id);
  (neighbour ?? $("new")).focus();
  announcer.announce("The conversation was deleted.");
  refreshList();
}

/** Remove a deleted conversation from the page. */
function forget(id) {
  saveDraft({ id, user }, "");
  sidebar.remove(id);
  if (id !== conversationIdInUrl()) return;
  history.replaceState(null, "", urlWithoutConversation());
  showConversationInUrl();
}

// Changes in other tabs.

onChangeInOtherTab(({ user: owner, id, what, conversation }) => {
  if (owner !== user) return;
  if (what === "described") return showDescription(conversation);
  const isShown = id === shown.id;
  if (what === "deleted") {
    const typed = box.value;
    forget(id);
    if (isShown && typed) setBox(typed);
    if (isShown) notice.showInfo("This conversation was deleted in another tab.");
  }
  // The edit dialog is about a message as it is shown now.
  const canReload = shown.isLoaded && shown.showsEnd && !shown.isReplying && !$("edit-dialog").open;
  if (what === "started" && isShown && canReload) showConversationInUrl();
  else if (what === "started" && isShown && shown.isReplying) changedElsewhere.add(shown);
  refreshList();
});

// Settings and the current user.

$("open-settings").addEventListener("click", () => {
  $("who-form").hidden = isSignedIn;
  $("signed-in").hidden = !isSignedIn;
  $("signed-in-as").textContent = nameOfUser();
  $("sign-out").hidden = session === null;
  $("sign-in-again").hidden = session !== null;
  $("who-box").value = user;
  $("former").hidden = isSignedIn || formerUsers().length === 0;
  $("former-list").replaceChildren(...formerUsers().map(makeFormerUser));
  $("settings-dialog").showModal();
});

function makeFormerUser(name) {
  const button = make("button", { type: "button", className: "quiet", textContent: "Switch back" });
  button.setAttribute("aria-label", `Switch back to ${name}`);
  button.addEventListener("click", () => changeUser(name));
  return make("li", {}, make("bdi", { textContent: name, title: name }), button);
}

$("settings-close").addEventListener("click", () => $("settings-dialog").close());
$("sign-in-again").addEventListener("click", () => {
  $("settings-dialog").close();
  askForToken("Paste the token of another user to switch.");
});
$("sign-out").addEventListener("click", async () => (await openIssuer()).signOut());
$("who-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("who-box").value.trim();
  if (name) changeUser(name);
});

/** Use another name, and remember the former one if it has conversations. */
async function changeUser(name) {
  const former = user;
  $("settings-dialog").close();
  drawer.close();
  restoreFocus();
  if (name === former) return;
  addFormerUser(former);
  removeFormerUser(name);
  switchUser(saveUser(name));
  // If the server cannot be reached, there may be some.
  const page = await listConversations({ user: former, limit: 1 }).catch(() => null);
  if (page?.conversations.length === 0) return removeFormerUser(former);
  if (user !== name || $("notice").hasChildNodes()) return;
  notice.showInfo(`Conversations of ${former} stay under that name.`, ["Switch back", () => changeUser(former)]);
}

function switchUser(name) {
  user = name;
  search.clear();
  showList();
  // The new user may have access to the conversation in the URL even if the previous one did not.
  if (shown.id === null) showConversationInUrl();
  else navigate(null);
}

// Signing in, if the server requires it.

let asking = null; // the promise that resolves when the user has been asked to sign in

onSignIn((error) => {
  asking ??= askToSignIn(error).finally(() => (asking = null));
});

async function askToSignIn(error) {
  const { kind } = await readSignIn().catch(() => ({ kind: "unknown" }));
  if (kind === "token") return askForToken(error.message);
  const token = currentToken();
  const issuer = await openIssuer().catch(() => null);
  await issuer?.askOtherTabs();
  if (currentToken() !== token) return; // another tab has signed the user in
  showSignInDialog(error.message);
}

// With a token.

function askForToken(reason) {
  $("token-reason").textContent = reason;
  if (!$("token-dialog").open) $("token-dialog").showModal();
}

$("token-no").addEventListener("click", () => $("token-dialog").close());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  saveToken($("token-box").value.trim().replace(/^Bearer\s+/i, ""));
  $("token-box").value = "";
  $("token-dialog").close();
  showSignedIn();
});

/** Show the page of the user who has just signed in. */
function showSignedIn() {
  const wasSignedOut = !isSignedIn;
  const typed = box.value;
  isSignedIn = true;
  drawer.close();
  restoreFocus();
  const name = currentUser();
  if (!wasSignedOut && name !== user) return switchUser(name);
  if (wasSignedOut) saveDraft(shown, "");
  user = name;
  notice.clear();
  showList();
  if (wasSignedOut || !shown.isLoaded) showConversationInUrl();
  if (wasSignedOut && typed) restoreText(shown, typed);
}

// At the issuer.

function showSignInDialog(reason) {
  $("sign-in-reason").textContent = reason;
  if (!$("sign-in-dialog").open) $("sign-in-dialog").showModal();
}

$("sign-in-no").addEventListener("click", () => $("sign-in-dialog").close());
$("sign-in-yes").addEventListener("click", async () => {
  $("sign-in-reason").textContent = "Going to the sign-in service…";
  try {
    await (await openIssuer()).startSignIn();
  } catch (error) {
    $("sign-in-reason").textContent = error.message;
  }
});

/** Load what signs users in at the issuer; other servers do not need it. */
async function openIssuer() {
  const issuer = await import("./oidc.js");
  issuer.onSignInInOtherTab(() => {
    $("sign-in-dialog").close();
    showSignedIn();
  });
  return issuer;
}

/** Return the issuer's answer to an attempt to sign in, if any, and remove it from the address. */
function takeAnswer() {
  const parameters = new URLSearchParams(location.search);
  if (!parameters.has("code") && !parameters.has("error")) return null;
  const attempt = takeAttempt();
  history.replaceState(null, "", location.pathname + (attempt?.hash ?? location.hash));
  return attempt && { parameters, attempt };
}

async function finishSignIn({ parameters, attempt }) {
  // With what was typed while nobody was signed in; drafts of a user stay that user's.
  show(new Conversation(conversationIdInUrl(), user));
  notice.showInfo("Signing in…");
  try {
    await (await openIssuer()).finishSignIn(parameters, attempt);
  } catch (error) {
    notice.clear();
    return showSignInDialog(error.message);
  }
  showSignedIn();
}

async function showList() {
  await sidebar.showUser(user);
  update();
}

addEventListener("hashchange", () => {
  drawer.close();
  document.querySelector("dialog[open]:not(#sign-in-dialog, #token-dialog)")?.close();
  showConversationInUrl();
});

addEventListener("online", () => {
  refreshList();
  if (!shown.isLoaded && !loading) showConversationInUrl();
});

function start() {
  showList();
  showConversationInUrl();
}

const answer = takeAnswer();
if (answer) finishSignIn(answer);
else start();
if (currentSession()) openIssuer().catch(() => {}); // to answer other tabs
if (matchMedia("(pointer: fine)").matches) box.focus();
