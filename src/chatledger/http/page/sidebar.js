// The list of conversations: pinned ones, then by the day of their last activity, then archived ones.

import { formatPeriod, make, parseTime, putInto } from "./elements.js";
import { makeIcon } from "./menu.js";
import { listConversations } from "./server.js";
import { urlOf } from "./urls.js";

const PAGE_SIZE = 30;
const MAX_LIMIT = 100;
// How many pages of `MAX_LIMIT` are searched for pinned and archived conversations.
const MAX_PAGES_SEARCHED = 5;
const PINNED = "Pinned";
const ARCHIVED = "Archived";

export const UNTITLED = "New conversation";

export class Sidebar {
  #rows = new Map(); // of the pages that are shown, newest activity first
  #olderRows = new Map(); // after those pages: the pinned and archived ones
  #groups = new Map();
  #user = null;
  #cursor = null;
  #current = null;
  #lastRequest = 0;

  constructor({ list, note, more, onMenu }) {
    this.list = list;
    this.note = note;
    this.more = more;
    this.onMenu = onMenu;
    more.addEventListener("click", () => this.#showMore());
  }

  /** Return the title of a conversation, or undefined if it is not in the list. */
  titleOf(id) {
    return this.#row(id)?.title;
  }

  isPinned(id) {
    return this.#row(id)?.isPinned === true;
  }

  /** Show the conversations of `user`. */
  async showUser(user) {
    this.#user = user;
    this.#rows.clear();
    this.#olderRows.clear();
    this.#cursor = null;
    this.#arrange();
    this.note.replaceChildren();
    this.more.hidden = true;
    await this.refresh();
    this.#findOlder();
  }

  async refresh() {
    const limit = Math.min(MAX_LIMIT, Math.max(PAGE_SIZE, this.#rows.size));
    await this.#load({ limit }, ({ conversations, cursor }) => {
      const oldRows = this.#rows;
      this.#rows = new Map();
      this.#add(conversations, oldRows);
      const last = [...this.#rows.values()].at(-1);
      const isOlder = (row) => cursor !== null && row.time < last.time;
      for (const [id, row] of this.#olderRows) if (!isOlder(row)) this.#olderRows.delete(id);
      for (const [id, row] of oldRows) {
        if (isOlder(row) && (row.isPinned || row.isArchived)) this.#olderRows.set(id, row);
      }
      this.#arrange();
    });
  }

  /** Show a conversation as it is after a change of its title or metadata. */
  update(conversation) {
    const id = conversation.conversation_id;
    const row = this.#updateRow(conversation, this.#row(id));
    if (!this.#rows.has(id)) this.#olderRows.set(id, row);
    this.#arrange();
  }

  /** Mark the row of the conversation that is shown. */
  markCurrent(id) {
    this.#current = id;
    for (const { id: rowId, link } of this.#allRows()) {
      if (rowId === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Return the link of the row next to that of `id`, which should get the focus if that goes, or null. */
  neighbourOf(id) {
    const links = [...this.list.querySelectorAll("a")].filter((link) => link.checkVisibility());
    const place = links.indexOf(this.#row(id)?.link);
    return links[place + 1] ?? links[place - 1] ?? null;
  }

  remove(id) {
    this.#rows.delete(id);
    this.#olderRows.delete(id);
    this.#arrange();
  }

  async #showMore() {
    await this.#load({ limit: PAGE_SIZE, cursor: this.#cursor }, ({ conversations }) => {
      this.#add(conversations, this.#olderRows);
      for (const { conversation_id: id } of conversations) this.#olderRows.delete(id);
      this.#arrange();
      const added = conversations.map(({ conversation_id: id }) => this.#rows.get(id).link);
      added.find((link) => link.checkVisibility())?.focus();
    });
  }

  /** Find pinned and archived conversations on the pages that are not shown. */
  async #findOlder() {
    const user = this.#user;
    let cursor = this.#cursor;
    if (!cursor) return;
    for (let page = 0; cursor && page < MAX_PAGES_SEARCHED; page++) {
      const found = await listConversations({ user, limit: MAX_LIMIT, cursor }).catch(() => null);
      if (found === null || user !== this.#user) return;
      for (const conversation of found.conversations) {
        const { conversation_id: id, metadata } = conversation;
        if (!this.#rows.has(id) && (metadata.pinned || metadata.archived)) {
          this.#olderRows.set(id, this.#updateRow(conversation, this.#olderRows.get(id)));
        }
      }
      cursor = found.cursor;
    }
    this.#arrange();
  }

  async #load(query, apply) {
    const request = ++this.#lastRequest;
    try {
      const page = await listConversations({ user: this.#user, ...query });
      if (request !== this.#lastRequest) return;
      this.#cursor = page.cursor;
      this.more.hidden = !page.cursor;
      apply(page);
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
      this.#olderRows.delete(id);
    }
  }

  #row(id) {
    return this.#rows.get(id) ?? this.#olderRows.get(id);
  }

  #allRows() {
    return [...this.#rows.values(), ...this.#olderRows.values()];
  }

  #updateRow({ conversation_id: id, title, updated_at, metadata }, oldRow) {
    const row = oldRow ?? this.#makeRow(id);
    row.title = title ?? UNTITLED;
    row.time = parseTime(updated_at) ?? new Date(0);
    row.isPinned = metadata.pinned === true;
    row.isArchived = metadata.archived === true;
    row.link.firstChild.textContent = row.title;
    row.link.title = `${row.title}\n${row.time.toLocaleString()}`;
    row.button.setAttribute("aria-label", `Actions for “${row.title}”`);
    return row;
  }

  #makeRow(id) {
    const link = make("a", { href: urlOf(id) }, make("span", { className: "title", dir: "auto" }));
    const button = make("button", { type: "button", className: "icon open-menu" }, makeIcon("more"));
    button.setAttribute("aria-haspopup", "menu");
    button.setAttribute("aria-expanded", "false");
    const row = { id, link, button, element: make("li", {}, link, button) };
    button.addEventListener("click", () => this.onMenu(row));
    return row;
  }

  /** Show all rows in their groups; reuse elements, so that the focus stays in place. */
  #arrange() {
    const focused = document.activeElement;
    const groups = [...this.#groupRows()].filter(([, rows]) => rows.length);
    const elements = groups.map(([label, rows]) => {
      const group = this.#group(label);
      putInto(group.list, rows.map(({ element }) => element));
      return group.element;
    });
    putInto(this.list, elements);
    if (this.list.contains(focused)) focused.focus({ preventScroll: true });
    this.note.textContent = groups.length || this.#cursor ? "" : "No conversations yet.";
    this.markCurrent(this.#current);
  }

  /** Return the rows of each group, by its label, in the order in which they are shown. */
  #groupRows() {
    const rows = this.#allRows().sort((one, other) => other.time - one.time);
    const groups = new Map([[PINNED, rows.filter(({ isPinned, isArchived }) => isPinned && !isArchived)]]);
    for (const row of rows) {
      if (row.isPinned || row.isArchived) continue;
      const label = formatPeriod(row.time);
      groups.set(label, [...(groups.get(label) ?? []), row]);
    }
    return groups.set(ARCHIVED, rows.filter(({ isArchived }) => isArchived));
  }

  #group(label) {
    const present = this.#groups.get(label);
    if (present) return present;
    const list = make("ul", { role: "list", ariaLabel: label });
    const element =
      label === ARCHIVED
        ? make("details", { className: "group" }, make("summary", { textContent: label }), list)
        : make("div", { className: "group" }, make("h2", { textContent: label }), list);
    const group = { element, list };
    this.#groups.set(label, group);
    return group;
  }
}
