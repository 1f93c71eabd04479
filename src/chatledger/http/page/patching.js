// Changing elements into others without replacing those that stay the same.

/**
 * Make `nodes` the children of `parent` from position `first` on. Equal elements stay, with what the
 * reader has done there: selected text, scrolled sideways, focused a button.
 */
export function patch(parent, nodes, first = 0) {
  const present = [...parent.childNodes].slice(first);
  nodes.forEach((wanted, n) => patchOne(parent, present[n], wanted));
  for (const node of present.slice(nodes.length)) node.remove();
}

function patchOne(parent, old, wanted) {
  if (typeof wanted === "string") wanted = document.createTextNode(wanted);
  if (!old) parent.append(wanted);
  else if (old instanceof Text && wanted instanceof Text) patchText(old, wanted.data);
  else if (!old.cloneNode().isEqualNode(wanted.cloneNode())) old.replaceWith(wanted);
  else if (old.tagName !== "BUTTON") patch(old, [...wanted.childNodes]);
}

function patchText(node, data) {
  if (data.startsWith(node.data)) node.appendData(data.slice(node.data.length));
  else node.data = data;
}
