// The theme: light, dark, or the system's. Not a module, so that it runs before the page is painted.
{
  const KEY = "chatledger.theme";
  const colors = [...document.querySelectorAll('meta[name="theme-color"]')];
  const [light, dark] = colors.map(({ content }) => content);

  const storedTheme = () => {
    try {
      return localStorage.getItem(KEY) ?? "system";
    } catch {
      return "system"; // the browser forbids storage
    }
  };

  const choose = (theme) => {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // The theme lasts as long as the page.
    }
    show(theme);
  };

  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    colors[0].content = theme === "dark" ? dark : light;
    colors[1].content = theme === "light" ? light : dark;
    for (const input of document.querySelectorAll('[name="theme"]')) input.checked = input.value === theme;
  };

  show(storedTheme());
  document.addEventListener("DOMContentLoaded", () => show(storedTheme()));
  document.addEventListener("change", ({ target }) => target.name === "theme" && choose(target.value));
  addEventListener("storage", ({ key }) => key === KEY && show(storedTheme())); // from another tab
}
