// The list of conversations, newest activity first.

import { lately, make, timeOf } from "./elements.js";
import { listConversations } from "./server.js";

const AT_ONCE = 30;
const AT_MOST = 100;

export const UNTITLED = "New conversation";

export class Sidebar {
  #rows = new Map();
  #user = null;
  #cursor = null;
  #current = null;
  #asked = 0;

  constructor({ list, note, more, onDelete }) {
    this.list = list;
    this.note = note;
    this.more = more;
    this.onDelete = onDelete;
    more.addEventListener("click", () => this.#showMore());
  }

  /** The title of a conversation in the list; undefined where it is not there. */
  titleOf(id) {
    return this.#rows.get(id)?.title;
  }

  /** Whose conversations are shown. */
  async showThoseOf(user) {
    this.#user = user;
    this.#rows.clear();
    this.list.replaceChildren();
    this.note.replaceChildren();
    this.more.hidden = true;
    await this.refresh();
  }

  async refresh() {
    const limit = Math.min(AT_MOST, Math.max(AT_ONCE, this.#rows.size));
    await this.#ask({ limit }, ({ conversations }) => {
      const before = this.#rows;
      this.#rows = new Map();
      this.#add(conversations, before);
    });
  }

  mark(id) {
    this.#current = id;
    for (const [rowId, { link }] of this.#rows) {
      if (rowId === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Take a row out; its neighbour's link, for the focus, or null. */
  remove(id) {
    const row = this.#rows.get(id);
    if (!row) return null;
    const neighbour = row.element.nextElementSibling ?? row.element.previousElementSibling;
    this.#rows.delete(id);
    row.element.remove();
    this.#tellIfEmpty();
    return neighbour?.querySelector("a") ?? null;
  }

  async #showMore() {
    const known = this.#rows.size;
    await this.#ask({ limit: AT_ONCE, cursor: this.#cursor }, ({ conversations }) => {
      this.#add(conversations, this.#rows);
      this.list.children[known]?.querySelector("a").focus();
    });
  }

  async #ask(query, use) {
    const turn = ++this.#asked;
    try {
      const found = await listConversations({ user: this.#user, ...query });
      if (turn !== this.#asked) return;
      this.#cursor = found.cursor;
      this.more.hidden = !found.cursor;
      use(found);
      this.#tellIfEmpty();
    } catch (error) {
      if (turn !== this.#asked) return;
      const again = make("button", { type: "button", className: "quiet", textContent: "Try again" });
      again.addEventListener("click", async () => {
        await this.refresh();
        if (!again.isConnected) this.list.querySelector("a")?.focus();
      });
      this.note.replaceChildren(`The list could not be loaded. ${error.message} `, again);
    }
  }

  #add(conversations, known) {
    for (const conversation of conversations) {
      const id = conversation.conversation_id;
      this.#rows.set(id, this.#rowOf(conversation, known.get(id)));
    }
    this.#arrange();
    this.mark(this.#current);
  }

  #rowOf({ conversation_id: id, title, updated_at }, known) {
    const row = known ?? this.#newRow(id);
    row.title = title ?? UNTITLED;
    row.link.firstChild.textContent = row.title;
    const time = timeOf(updated_at);
    row.link.lastChild.textContent = time ? lately(time) : "";
    row.button.setAttribute("aria-label", `Delete “${row.title}”`);
    return row;
  }

  #newRow(id) {
    const link = make(
      "a",
      { href: addressOf(id) },
      make("span", { className: "title", dir: "auto" }),
      make("time"),
    );
    const button = make("button", { type: "button", className: "icon delete", title: "Delete" });
    button.append(document.querySelector("#bin").content.cloneNode(true));
    const row = { link, button, element: make("li", {}, link, button) };
    button.addEventListener("click", () => this.onDelete(id, row.title));
    return row;
  }

  /** Rows keep their elements and move only where they must, so that focus stays where it is. */
  #arrange() {
    const focused = document.activeElement;
    const wanted = [...this.#rows.values()].map(({ element }) => element);
    for (const element of [...this.list.children]) if (!wanted.includes(element)) element.remove();
    wanted.forEach((element, n) => {
      const there = this.list.children[n] ?? null;
      if (there !== element) this.list.insertBefore(element, there);
    });
    if (this.list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #tellIfEmpty() {
    this.note.textContent = this.#rows.size ? "" : "No conversations yet.";
  }
}

/** Where a conversation is found on this page; ids may hold any character. */
export function addressOf(id) {
  return `#c=${encodeURIComponent(id)}`;
}
