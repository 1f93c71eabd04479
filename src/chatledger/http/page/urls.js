// The address of a conversation on the page.

/** Return the URL of a conversation on this page; ids may contain any character. */
export function urlOf(id) {
  return `#c=${encodeURIComponent(id)}`;
}
