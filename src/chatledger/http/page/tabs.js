// Changes that one tab makes, told to the others of this browser.

const channel = new BroadcastChannel("chatledger");

/**
 * Tell the other tabs that a conversation of `user` has changed. `what` is `started` or `ended`, of a
 * turn, `described`, with the `conversation` as it is now, or `deleted`.
 */
export function tellTabs(user, id, what, conversation = null) {
  channel.postMessage({ user, id, what, conversation });
}

/** Call `act` with each change that another tab tells. */
export function onChangeInOtherTab(act) {
  channel.addEventListener("message", ({ data }) => act(data));
}
