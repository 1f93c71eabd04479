// The list of conversations, newest activity first.

import { formatRecent, make, parseTime } from "./elements.js";
import { listConversations } from "./server.js";
import { urlOf } from "./urls.js";

const PAGE_SIZE = 30;
const MAX_LIMIT = 100;

export const UNTITLED = "New conversation";

export class Sidebar {
  #rows = new Map();
  #user = null;
  #cursor = null;
  #current = null;
  #lastRequest = 0;

  constructor({ list, note, more, onDelete }) {
    this.list = list;
    this.note = note;
    this.more = more;
    this.onDelete = onDelete;
    more.addEventListener("click", () => this.#showMore());
  }

  /** Return the title of a conversation, or undefined if it is not in the list. */
  titleOf(id) {
    return this.#rows.get(id)?.title;
  }

  /** Show the conversations of `user`. */
  async showUser(user) {
    this.#user = user;
    this.#rows.clear();
    this.list.replaceChildren();
    this.note.replaceChildren();
    this.more.hidden = true;
    await this.refresh();
  }

  async refresh() {
    const limit = Math.min(MAX_LIMIT, Math.max(PAGE_SIZE, this.#rows.size));
    await this.#load({ limit }, ({ conversations }) => {
      const oldRows = this.#rows;
      this.#rows = new Map();
      this.#add(conversations, oldRows);
    });
  }

  /** Mark the row of the conversation that is shown. */
  markCurrent(id) {
    this.#current = id;
    for (const [rowId, { link }] of this.#rows) {
      if (rowId === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Remove a row, and return the link of its neighbour, which should get the focus, or null. */
  remove(id) {
    const row = this.#rows.get(id);
    if (!row) return null;
    const neighbour = row.element.nextElementSibling ?? row.element.previousElementSibling;
    this.#rows.delete(id);
    row.element.remove();
    this.#noteIfEmpty();
    return neighbour?.querySelector("a") ?? null;
  }

  async #showMore() {
    const oldSize = this.#rows.size;
    await this.#load({ limit: PAGE_SIZE, cursor: this.#cursor }, ({ conversations }) => {
      this.#add(conversations, this.#rows);
      this.list.children[oldSize]?.querySelector("a").focus();
    });
  }

  async #load(query, apply) {
    const request = ++this.#lastRequest;
    try {
      const page = await listConversations({ user: this.#user, ...query });
      if (request !== this.#lastRequest) return;
      this.#cursor = page.cursor;
      this.more.hidden = !page.cursor;
      apply(page);
      this.#noteIfEmpty();
    } catch (error) {
      if (request !== this.#lastRequest) return;
      const retry = make("button", { type: "button", className: "quiet", textContent: "Try again" });
      retry.addEventListener("click", async () => {
        await this.refresh();
        if (!retry.isConnected) this.list.querySelector("a")?.focus();
      });
      this.note.replaceChildren(`The list could not be loaded. ${error.message} `, retry);
    }
  }

  #add(conversations, oldRows) {
    for (const conversation of conversations) {
      const id = conversation.conversation_id;
      this.#rows.set(id, this.#updateRow(conversation, oldRows.get(id)));
    }
    this.#arrange();
    this.markCurrent(this.#current);
  }

  #updateRow({ conversation_id: id, title, updated_at }, oldRow) {
    const row = oldRow ?? this.#makeRow(id);
    row.title = title ?? UNTITLED;
    row.link.firstChild.textContent = row.title;
    const time = parseTime(updated_at);
    row.link.lastChild.textContent = time ? formatRecent(time) : "";
    row.button.setAttribute("aria-label", `Delete “${row.title}”`);
    return row;
  }

  #makeRow(id) {
    const link = make(
      "a",
      { href: urlOf(id) },
      make("span", { className: "title", dir: "auto" }),
      make("time"),
    );
    const button = make("button", { type: "button", className: "icon delete", title: "Delete" });
    button.append(document.querySelector("#bin").content.cloneNode(true));
    const row = { link, button, element: make("li", {}, link, button) };
    button.addEventListener("click", () => this.onDelete(id, row.title));
    return row;
  }

  /** Move rows only where necessary, and reuse their elements, so that the focus stays in place. */
  #arrange() {
    const focused = document.activeElement;
    const wanted = [...this.#rows.values()].map(({ element }) => element);
    for (const element of [...this.list.children]) if (!wanted.includes(element)) element.remove();
    wanted.forEach((element, n) => {
      const present = this.list.children[n] ?? null;
      if (present !== element) this.list.insertBefore(element, present);
    });
    if (this.list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #noteIfEmpty() {
    this.note.textContent = this.#rows.size ? "" : "No conversations yet.";
  }
}
