// The search of a user's conversations, whose matches take the place of the list.

import { make } from "./elements.js";
import { searchConversations } from "./server.js";
import { UNTITLED } from "./sidebar.js";
import { urlOf } from "./urls.js";

const PAUSE_MS = 200; // in typing, before the server is asked
const PAGE_SIZE = 20;
const AUTHORS = { user: "You", assistant: "Chatledger" };

export class Search {
  #searching = null; // the AbortController of the request in progress, if any
  #timer = 0;
  #cursor = null;
  #query = "";

  /**
   * `panel` has the matches and is shown instead of `list`. `getUser` returns the current user, and
   * `onOpen` is called with the id of a conversation and the seq of a message, or null for the title.
   */
  constructor({ form, box, list, panel, matches, note, more, getUser, onOpen }) {
    Object.assign(this, { box, list, panel, matches, note, more, getUser, onOpen });
    box.addEventListener("input", () => this.#onInput());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    more.addEventListener("click", () => this.#showMore());
    matches.addEventListener("click", (event) => this.#onClick(event));
    for (const element of [form, panel]) {
      element.addEventListener("keydown", (event) => {
        if (event.key !== "Escape" || event.isComposing || (panel.hidden && !box.value)) return;
        // Neither does the drawer close nor a reply stop.
        event.preventDefault();
        event.stopPropagation();
        this.clear();
        box.focus();
      });
    }
  }

  /** Show the list again, and empty the box. */
  clear() {
    this.box.value = "";
    this.#close();
  }

  #onInput() {
    clearTimeout(this.#timer);
    if (this.box.value.trim()) this.#timer = setTimeout(() => this.#start(), PAUSE_MS);
    else this.#close();
  }

  #close() {
    clearTimeout(this.#timer);
    this.#searching?.abort();
    this.#show(false);
    this.matches.replaceChildren();
    this.note.textContent = "";
  }

  #show(isSearch) {
    this.panel.hidden = !isSearch;
    this.list.hidden = isSearch;
  }

  async #start() {
    clearTimeout(this.#timer);
    this.#query = this.box.value.trim();
    if (!this.#query) return this.#close();
    this.#show(true);
    await this.#load(null);
  }

  async #showMore() {
    const oldSize = this.matches.children.length;
    await this.#load(this.#cursor);
    this.matches.children[oldSize]?.querySelector("a").focus();
  }

  /** Show the next matches, or the first ones if `cursor` is null. */
  async #load(cursor) {
    this.#searching?.abort();
    const controller = (this.#searching = new AbortController());
    const { signal } = controller;
    const isNew = cursor === null;
    try {
      let page;
      do {
        // An answer without matches may only say how far the search has come.
        const query = { user: this.getUser(), q: this.#query, limit: PAGE_SIZE, cursor, signal };
        page = await searchConversations(query);
        if (signal.aborted) return;
        cursor = page.cursor;
        if (!page.matches.length && cursor) this.note.textContent = "Searching older conversations …";
      } while (!page.matches.length && cursor);
      const rows = page.matches.map(makeRow);
      if (isNew) this.matches.replaceChildren(...rows);
      else this.matches.append(...rows);
      this.#cursor = cursor;
      this.more.hidden = !cursor;
      this.note.textContent = describe(this.matches.children.length, cursor);
    } catch (error) {
      if (signal.aborted) return;
      if (isNew) this.matches.replaceChildren();
      this.more.hidden = isNew || !cursor;
      this.note.textContent = error.status === 422 ? "Type a word to search for." : error.message;
    }
  }

  #onClick(event) {
    const link = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.target.closest("a");
    if (!link) return;
    event.preventDefault();
    const { conversation, seq } = link.dataset;
    this.onOpen(conversation, seq ? Number(seq) : null);
  }
}

function describe(count, cursor) {
  if (!count) return "Nothing was found.";
  return `${count}${cursor ? " or more" : ""} ${count === 1 && !cursor ? "match" : "matches"}`;
}

function makeRow({ conversation_id: id, title, seq, role, excerpt, spans }) {
  const link = make("a", { href: urlOf(id) });
  link.dataset.conversation = id;
  if (seq === null) {
    link.append(make("span", { className: "title", dir: "auto" }, ...marked(excerpt, spans)));
  } else {
    link.dataset.seq = seq;
    const words = make("span", { dir: "auto" }, ...marked(excerpt, spans));
    link.append(
      make("span", { className: "title", dir: "auto", textContent: title ?? UNTITLED }),
      make("span", { className: "excerpt" }, `${AUTHORS[role]}: `, words),
    );
  }
  return make("li", {}, link);
}

/** Return the parts of `text`, with those at `spans` marked. */
function marked(text, spans) {
  const parts = [];
  let end = 0;
  for (const [from, to] of spans) {
    parts.push(text.slice(end, from), make("mark", { textContent: text.slice(from, to) }));
    end = to;
  }
  return [...parts, text.slice(end)];
}
