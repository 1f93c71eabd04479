// Conversations as files: saving, printing and importing them.

import { make } from "./elements.js";
import { exportConversation, importConversation } from "./server.js";

/** Save the conversation as a file of the browser's downloads; `format` is `json` or `markdown`. */
export async function saveAsFile(id, { user, format }) {
  const { file, name } = await exportConversation(id, { user, format });
  const link = make("a", { href: URL.createObjectURL(file), download: name });
  link.click();
  // The download begins after the click, and needs the address until then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Print the conversation with all its messages, and with the details that are folded. */
export async function print(conversation) {
  while (conversation.before !== null) (await conversation.readEarlier({ keepsAll: true }))();
  while (conversation.hasLater) (await conversation.readLater({ keepsAll: true }))();
  const folded = [...conversation.element.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
  window.print();
  for (const details of folded) details.open = false;
}

/** Let the user choose a file, and call `onFile` with it. */
export function chooseFile(onFile) {
  const input = make("input", { type: "file", accept: ".json,application/json" });
  input.addEventListener("change", () => input.files.length && onFile(input.files[0]));
  input.click();
}

/** Import the file as a new conversation of the user, and return the conversation's id. */
export async function importFile(file, { user }) {
  try {
    return (await importConversation(file, { user })).conversation_id;
  } catch (error) {
    if (error.status !== 400 && error.status !== 422) throw error;
    throw new Error(`Choose a file that was exported as JSON. ${error.message}`);
  }
}
