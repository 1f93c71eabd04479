// What the server offers: its models, and whether a conversation may have a system prompt of its own.

import { readModels } from "./server.js";

let offer = null;

/**
 * Return a promise of `{models, allows_system_prompt}`; each model has `id` and `is_default`. The
 * server is asked once, and again only if that failed.
 */
export function readOffer() {
  offer ??= readModels().catch((error) => {
    offer = null;
    throw error;
  });
  return offer;
}
