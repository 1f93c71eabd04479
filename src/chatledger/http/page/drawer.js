// On narrow screens the list of conversations is a drawer.

export class Drawer {
  constructor({ opener, closer, scrim, drawer, main }) {
    Object.assign(this, { opener, drawer, main, closer });
    opener.addEventListener("click", () => this.open());
    closer.addEventListener("click", () => this.close());
    scrim.addEventListener("click", () => this.close());
    matchMedia("(width < 48rem)").addEventListener("change", () => this.close());
  }

  get isOpen() {
    return this.main.inert;
  }

  open() {
    document.documentElement.classList.add("list-open");
    this.opener.setAttribute("aria-expanded", "true");
    this.main.inert = true;
    this.closer.focus();
  }

  close() {
    if (!this.isOpen) return;
    const hadFocus = this.drawer.contains(document.activeElement);
    document.documentElement.classList.remove("list-open");
    this.opener.setAttribute("aria-expanded", "false");
    this.main.inert = false;
    if (hadFocus) this.opener.focus();
  }
}
