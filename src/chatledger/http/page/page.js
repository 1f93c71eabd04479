// The page: which conversation is shown, to whom, and what the buttons do.

import { Conversation } from "./conversation.js";
import { Drawer } from "./drawer.js";
import { make } from "./elements.js";
import {
  draftOf,
  keepDraft,
  knownToken,
  knownUser,
  rememberToken,
  rememberUser,
} from "./memory.js";
import { EndInView, Notice, Voice } from "./reading.js";
import { deleteConversation, onSignIn } from "./server.js";
import { Sidebar, UNTITLED, addressOf } from "./sidebar.js";

const $ = (id) => document.getElementById(id);
const box = $("box");
const scroller = $("scroller");

const voice = new Voice($("spoken"));
const end = new EndInView({ scroller, content: $("column"), button: $("latest") });
const notice = new Notice($("notice"), settle);
const drawer = new Drawer({
  opener: $("open-list"),
  closer: $("close-list"),
  scrim: $("scrim"),
  drawer: $("sidebar"),
  behind: $("main"),
});
const sidebar = new Sidebar({
  list: $("list"),
  note: $("list-note"),
  more: $("list-more"),
  onDelete: askToDelete,
});

const LOOK_AGAIN = ["Look again", showAddressed];
const TRY_AGAIN = ["Try again", showAddressed];
const SHOW_KEPT = ["Show what was kept", showAddressed];

let user = knownUser();
let shown = new Conversation(null, user);
let loading = null; // what ends the loading of the one shown
let loaded = null; // a promise of its end
const replying = new Set(); // conversations whose reply is being written, shown or not

// Where we are: the conversation's id is in the address, so that reload, back and forward work.

function addressed() {
  return new URLSearchParams(location.hash.slice(1)).get("c") || null;
}

function go(id) {
  if (id !== addressed()) history.pushState(null, "", id === null ? bareAddress() : addressOf(id));
  showAddressed();
}

function bareAddress() {
  return location.pathname + location.search;
}

function showAddressed() {
  const id = addressed();
  loading?.abort();
  loading = null;
  notice.clear();
  const alive = [...replying].find((one) => one.id !== null && one.id === id && one.user === user);
  show(alive ?? new Conversation(id, user));
  if (!shown.isLoaded) loaded = load(shown);
}

async function load(conversation) {
  const mine = (loading = new AbortController());
  $("column").setAttribute("aria-busy", "true");
  try {
    await conversation.load(mine.signal);
    if (conversation.isUnanswered && loading === mine) {
      notice.remark("There is no reply to the last message yet.", LOOK_AGAIN);
    }
  } catch (error) {
    if (loading !== mine) return;
    if (error.status === 404) {
      // What is written here now begins a new conversation.
      const typed = box.value;
      show(new Conversation(null, user));
      if (typed) write(typed);
      notice.tell(error.message);
    } else {
      notice.tell(error.message, TRY_AGAIN);
    }
  }
  if (loading !== mine) return;
  loading = null;
  $("column").removeAttribute("aria-busy");
  update();
  end.follow();
}

function show(conversation) {
  shown = conversation;
  $("messages").replaceChildren(conversation.element);
  $("column").removeAttribute("aria-busy");
  box.value = draftOf(conversation);
  fit();
  update();
  end.follow();
}

/** Bring everything around the messages in line with the conversation shown. */
function update() {
  const title = shown.title ?? sidebar.titleOf(shown.id) ?? UNTITLED;
  $("title").textContent = title;
  document.title = shown.id === null ? "Chatledger" : `${title} · Chatledger`;
  $("who").textContent = user;
  $("welcome").hidden = !shown.isLoaded || !shown.isEmpty;
  $("earlier").hidden = shown.before === null;
  if (!shown.canBeStopped && document.activeElement === $("stop")) settle();
  $("stop").hidden = !shown.canBeStopped;
  $("send").setAttribute("aria-disabled", String(shown.isReplying || !box.value.trim()));
  sidebar.mark(shown.id);
}

async function refreshList() {
  await sidebar.refresh();
  shown.title = sidebar.titleOf(shown.id) ?? shown.title;
  update();
}

// Talking.

async function send() {
  const { id } = shown;
  if (!shown.isLoaded) {
    if (!loading) showAddressed(); // it could not be loaded; perhaps now it can
    await loaded;
  }
  const conversation = shown;
  const text = box.value;
  if (conversation.id !== id || !conversation.isLoaded) return;
  if (conversation.isReplying || !text.trim()) return;
  const isShown = () => conversation === shown;
  write("");
  notice.clear();
  voice.say("Waiting for the reply.");
  replying.add(conversation);
  const saying = conversation.say(text, {
    onStart() {
      if (isShown()) {
        if (addressed() !== conversation.id) history.pushState(null, "", addressOf(conversation.id));
        keepDraft({ id: null, user }, "");
        keepDraft(conversation, box.value);
      }
      update();
      refreshList();
    },
    onPiece: (piece) => isShown() && voice.hear(piece),
  });
  update();
  end.follow();
  try {
    await saying;
    if (isShown()) voice.end();
    refreshList();
  } catch (error) {
    if (!error.stored) giveBack(conversation, text);
    if (isShown() && error.stored) notice.tell(error.message, SHOW_KEPT);
    else if (isShown()) notice.tell(`${error.message} What you wrote is back in the box.`);
  } finally {
    replying.delete(conversation);
    update();
  }
}

/** What could not be sent goes back, before what was typed since. */
function giveBack(conversation, text) {
  const typed = conversation === shown ? box.value : draftOf(conversation);
  const both = typed ? `${text}\n${typed}` : text;
  if (conversation === shown) write(both);
  else keepDraft(conversation, both);
}

function write(text) {
  box.value = text;
  keepDraft(shown, text);
  fit();
}

function stop() {
  if (!shown.canBeStopped) return;
  shown.stop();
  voice.say("Stopped.");
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
box.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter belongs to it (229: Safari's way to say so).
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
box.addEventListener("input", () => {
  keepDraft(shown, box.value);
  fit();
  update();
});
$("stop").addEventListener("click", stop);

/** Let the box grow with its text, where the style sheet alone cannot. */
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

// Reading.

$("earlier").addEventListener("click", async ({ currentTarget: button }) => {
  const conversation = shown;
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  try {
    await end.holding(conversation.element.querySelector(".message"), async () => {
      await conversation.loadEarlier();
      const focused = document.activeElement === button;
      update();
      if (button.hidden && focused) scroller.focus({ preventScroll: true });
    });
    voice.say("Earlier messages loaded.");
  } catch (error) {
    if (conversation === shown) notice.tell(error.message);
  } finally {
    button.removeAttribute("aria-disabled");
  }
});
$("latest").addEventListener("click", () => {
  settle();
  end.follow();
});
$("skip").addEventListener("click", () => box.focus());

/** Give the focus a good place: the box, but not where that would raise a keyboard of glass. */
function settle() {
  if (matchMedia("(pointer: fine)").matches) box.focus();
  else scroller.focus({ preventScroll: true });
}

// The list.

$("list").addEventListener("click", (event) => {
  const here = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.target.closest("a");
  if (!here) return;
  drawer.close();
  settle();
});
for (const id of ["new", "new-here"]) {
  $(id).addEventListener("click", () => {
    drawer.close();
    go(null);
    box.focus();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (drawer.isOpen) drawer.close();
  else stop();
});

// Deleting.

function askToDelete(id, title) {
  const name = make("bdi", { textContent: title });
  $("delete-text").replaceChildren("“", name, "” and all its messages will be gone for good.");
  $("delete-yes").onclick = () => {
    $("delete-dialog").close();
    remove(id);
  };
  $("delete-dialog").showModal();
}

$("delete-no").addEventListener("click", () => $("delete-dialog").close());

async function remove(id) {
  for (const conversation of replying) if (conversation.id === id) conversation.stop();
  try {
    await deleteConversation(id, { user });
  } catch (error) {
    // Gone already is as good.
    if (error.status !== 404) return notice.tell(`It was not deleted. ${error.message}`);
  }
  keepDraft({ id, user }, "");
  (sidebar.remove(id) ?? $("new")).focus();
  if (id === addressed()) {
    history.replaceState(null, "", bareAddress());
    showAddressed();
  }
  voice.say("The conversation is deleted.");
  refreshList();
}

// Who the user is.

$("change-who").addEventListener("click", () => {
  if (knownToken()) return signIn("Another token makes you somebody else here.");
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
  settle();
  if (name !== user) become(rememberUser(name));
});

function become(name) {
  user = name;
  showList();
  // An address that was not for the one may be for the other.
  if (shown.id === null) showAddressed();
  else go(null);
}

// Signing in, where the server wants it.

onSignIn(signIn);

function signIn(reason) {
  $("token-reason").textContent = reason;
  if (!$("token-dialog").open) $("token-dialog").showModal();
}

$("token-no").addEventListener("click", () => $("token-dialog").close());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const wasNobody = knownToken() === null;
  const typed = box.value;
  rememberToken($("token-box").value.trim().replace(/^Bearer\s+/i, ""));
  $("token-box").value = "";
  $("token-dialog").close();
  drawer.close();
  settle();
  const name = knownUser();
  if (!wasNobody && name !== user) return become(name);
  user = name;
  showList();
  if (wasNobody || !shown.isLoaded) showAddressed();
  if (wasNobody && typed) write(typed);
});

async function showList() {
  await sidebar.showThoseOf(user);
  update();
}

addEventListener("hashchange", () => {
  drawer.close();
  showAddressed();
});
showList();
showAddressed();
if (matchMedia("(pointer: fine)").matches) box.focus();
