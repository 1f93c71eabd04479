// A menu of actions, which a button opens.

import { make } from "./elements.js";

const MARGIN = 8; // pixels between the menu and the edge of the window

/** Fills and shows the one menu of the page; keys are those of every menu (arrows, Home, End, letters). */
export class Menu {
  #opener = null;

  constructor(element) {
    this.element = element;
    element.addEventListener("keydown", (event) => this.#onKey(event));
    const closeOutside = (target) => {
      if (!element.contains(target) && !this.#opener?.contains(target)) this.close();
    };
    element.addEventListener("focusout", ({ relatedTarget }) => relatedTarget && closeOutside(relatedTarget));
    document.addEventListener("pointerdown", ({ target }) => closeOutside(target));
    addEventListener("resize", () => this.close());
    document.addEventListener("scroll", () => this.close(), { capture: true, passive: true });
  }

  /** Show the menu at the button `opener`, or close it if it is there. Actions are `{label, icon, act, className}`. */
  toggle(opener, actions) {
    const isOpen = this.#opener === opener;
    this.close();
    if (isOpen) return;
    this.#opener = opener;
    opener.setAttribute("aria-expanded", "true");
    this.element.setAttribute("aria-label", opener.getAttribute("aria-label"));
    this.element.replaceChildren(...actions.map((action) => this.#makeItem(action)));
    this.element.showPopover();
    this.#place(opener.getBoundingClientRect());
    this.element.firstChild.focus({ preventScroll: true });
  }

  close() {
    if (!this.#opener) return;
    const opener = this.#opener;
    this.#opener = null;
    const hadFocus = this.element.contains(document.activeElement);
    opener.setAttribute("aria-expanded", "false");
    this.element.hidePopover();
    if (hadFocus) opener.focus({ preventScroll: true });
  }

  #makeItem({ label, icon, act, className = "" }) {
    const item = make("button", { type: "button", className, tabIndex: -1 }, makeIcon(icon), label);
    item.setAttribute("role", "menuitem");
    item.addEventListener("click", () => {
      this.close();
      act();
    });
    return item;
  }

  #place({ top, bottom, right }) {
    const { offsetWidth, offsetHeight, style } = this.element;
    const below = bottom + offsetHeight + MARGIN <= innerHeight;
    style.top = `${below ? bottom : Math.max(MARGIN, top - offsetHeight)}px`;
    style.left = `${Math.max(MARGIN, Math.min(right - 40, innerWidth - offsetWidth - MARGIN))}px`;
  }

  #onKey(event) {
    const items = [...this.element.children];
    const now = items.indexOf(document.activeElement);
    const starting = (item) => item.textContent.toLowerCase().startsWith(event.key.toLowerCase());
    let wanted;
    if (event.key === "Escape" || event.key === "Tab") this.close();
    else if (event.key === "ArrowDown") wanted = items[(now + 1) % items.length];
    else if (event.key === "ArrowUp") wanted = items.at(now - 1);
    else if (event.key === "Home") wanted = items[0];
    else if (event.key === "End") wanted = items.at(-1);
    else if (event.key.trim().length === 1) {
      wanted = [...items.slice(now + 1), ...items.slice(0, now + 1)].find(starting);
      if (!wanted) return;
    } else return;
    wanted?.focus();
    event.stopPropagation();
    if (event.key !== "Tab") event.preventDefault(); // Tab goes on from the button
  }
}

/** Return a copy of the icon in the template `icon-NAME` of the page. */
export function makeIcon(name) {
  return document.querySelector(`#icon-${name}`).content.cloneNode(true);
}
