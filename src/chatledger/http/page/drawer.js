// The list of conversations as a drawer, which it is on narrow screens.

export class Drawer {
  constructor({ opener, closer, scrim, drawer, behind }) {
    Object.assign(this, { opener, drawer, behind, closer });
    opener.addEventListener("click", () => this.open());
    closer.addEventListener("click", () => this.close());
    scrim.addEventListener("click", () => this.close());
    matchMedia("(width < 48rem)").addEventListener("change", () => this.close());
  }

  get isOpen() {
    return this.behind.inert;
  }

  open() {
    document.documentElement.classList.add("list-open");
    this.opener.setAttribute("aria-expanded", "true");
    this.behind.inert = true;
    this.closer.focus();
  }

  close() {
    if (!this.isOpen) return;
    const hadFocus = this.drawer.contains(document.activeElement);
    document.documentElement.classList.remove("list-open");
    this.opener.setAttribute("aria-expanded", "false");
    this.behind.inert = false;
    if (hadFocus) this.opener.focus();
  }
}
