// Sign-in at the issuer: the authorization code flow with PKCE (RFC 7636), and its tokens.
//
// Each tab keeps the tokens itself. Tabs give them to one another, so that a new tab needs no sign-in
// and no tab uses a refresh token that another one has used up.

import { ApiError, readSignIn } from "./server.js";
import { currentSession, endSession, forgetSignIn, saveAttempt, saveSession } from "./storage.js";
import * as oauth from "./vendor/oauth4webapi.js";

const CLOCK_TOLERANCE_SECONDS = 300;
const REQUEST_TIMEOUT_MS = 20_000;
// The longest wait for other tabs; a browser may have frozen them.
const TABS_TIMEOUT_MS = 2_000;
// Tokens are renewed so long before they expire, or a tenth of their lifetime if that is shorter.
const RENEWAL_MARGIN_MS = 30_000;

const page = location.origin + location.pathname; // the redirect URI, too
const channel = new BroadcastChannel(`chatledger.sign-in ${page}`);
const TAB = `chatledger.tab ${page}`;
const RENEWAL = `chatledger.renewal ${page}`;
const endedGrants = new Set();
let onSignedIn = () => {};

// Every tab holds this lock, so that the others can count it.
const isCounted = new Promise((resolve) => {
  if (!navigator.locks) return resolve(); // the page did not come over HTTPS
  navigator.locks.request(TAB, { mode: "shared" }, () => {
    resolve();
    return new Promise(() => {});
  });
});

/** Set the function that is called when another tab has signed the user of this one in. */
export function onSignInInOtherTab(act) {
  onSignedIn = act;
}

/** Go to the issuer, which then sends the user back to the page with an answer to this attempt. */
export async function startSignIn() {
  if (!isSecureContext) {
    throw new ApiError("Browsers sign in only over HTTPS. Open this page by its https address.", "not_secure");
  }
  const { described } = await openIssuer();
  const verifier = oauth.generateRandomCodeVerifier();
  const attempt = {
    state: oauth.generateRandomState(),
    nonce: oauth.generateRandomNonce(),
    verifier,
    hash: location.hash,
  };
  const address = new URL(described.authorization_endpoint);
  const parameters = {
    response_type: "code",
    client_id: described.client_id,
    redirect_uri: page,
    scope: described.scope,
    state: attempt.state,
    nonce: attempt.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    ...(described.audience && { audience: described.audience }),
  };
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  saveAttempt(attempt);
  location.assign(address);
}

/** Get the tokens for the issuer's answer to an attempt; throw `ApiError` with what went wrong. */
export async function finishSignIn(answer, attempt) {
  try {
    const { server, client, options } = await openIssuer();
    const checked = oauth.validateAuthResponse(server, client, answer, attempt.state);
    const { verifier, nonce } = attempt;
    const response = await oauth.authorizationCodeGrantRequest(
      ...[server, client, oauth.None(), checked, page, verifier, options],
    );
    const expected = { expectedNonce: nonce, requireIdToken: true };
    share(makeSession(await oauth.processAuthorizationCodeResponse(server, client, response, expected)));
  } catch (error) {
    throw toApiError(error);
  }
}

/**
 * Return an access token other than `former`, which has expired or which the server rejects. Throw
 * `ApiError`, with status 401 if the user must sign in again.
 */
export async function renewToken(former) {
  return navigator.locks.request(RENEWAL, async () => {
    const renewed = () => (currentSession()?.accessToken === former ? null : currentSession()?.accessToken);
    if (!renewed()) await askOtherTabs();
    if (renewed()) return renewed();
    const session = currentSession();
    if (!session?.refreshToken) throw end(session);
    try {
      const { server, client, options } = await openIssuer();
      const response = await oauth.refreshTokenGrantRequest(
        ...[server, client, oauth.None(), session.refreshToken, options],
      );
      const next = makeSession(await oauth.processRefreshTokenResponse(server, client, response), session);
      if (next.subject !== session.subject) throw end(session);
      // The user may have signed out meanwhile.
      if (currentSession()?.grant !== session.grant) throw end(null);
      share(next);
      return next.accessToken;
    } catch (error) {
      throw isRefusal(error) && !isTemporary(error) ? end(session) : toApiError(error);
    }
  });
}

/** Ask the other tabs for their tokens, and wait until each has answered. */
export async function askOtherTabs() {
  if (!navigator.locks) return;
  await isCounted;
  const { held } = await navigator.locks.query();
  let missing = held.filter(({ name }) => name === TAB).length - 1;
  if (missing <= 0) return;
  const question = oauth.generateRandomState();
  await new Promise((resolve) => {
    const timer = setTimeout(finish, TABS_TIMEOUT_MS);
    channel.addEventListener("message", count);
    channel.postMessage({ what: "question", question });
    function count({ data }) {
      if (data.question === question && data.what === "answer" && --missing === 0) finish();
    }
    function finish() {
      clearTimeout(timer);
      channel.removeEventListener("message", count);
      resolve();
    }
  });
}

/** Sign the user out in all tabs, and at the issuer if it offers that; the page is loaded again. */
export async function signOut() {
  const session = currentSession();
  forgetSignIn();
  channel.postMessage({ what: "sign-out" });
  const described = await readSignIn().catch(() => null);
  if (!described?.end_session_endpoint) return reload();
  const address = new URL(described.end_session_endpoint);
  if (session?.idToken) address.searchParams.set("id_token_hint", session.idToken);
  address.searchParams.set("client_id", described.client_id);
  address.searchParams.set("post_logout_redirect_uri", page);
  address.searchParams.set("logout_uri", page); // what Amazon Cognito calls it
  location.replace(address);
}

// This listener is before those of `askOtherTabs`: the tokens in an answer are there once it counts.
channel.addEventListener("message", ({ data }) => {
  if (data.what === "question") {
    channel.postMessage({ what: "answer", question: data.question, session: currentSession() });
  } else if (data.what === "sign-out") {
    forgetSignIn();
    reload();
  } else if (data.session) {
    adopt(data.session);
  }
});

// The browser may show a page again, as it was before the user signed out.
addEventListener("pageshow", ({ persisted }) => persisted && location.reload());

function reload() {
  history.replaceState(null, "", location.pathname);
  location.reload();
}

/** Use the session of another tab if this one has none, or an older one of the same sign-in. */
function adopt(session) {
  const own = currentSession();
  if (endedGrants.has(session.grant)) return;
  if (own && (own.grant !== session.grant || own.serial >= session.serial)) return;
  saveSession(session);
  if (!own) onSignedIn();
}

function share(session) {
  saveSession(session);
  channel.postMessage({ what: "session", session });
}

/** End a session that cannot be renewed, and return the error that says so. */
function end(session) {
  if (session) {
    endedGrants.add(session.grant);
    endSession();
  }
  const sentence = "Your sign-in has ended. Sign in again; what you have typed is kept.";
  return new ApiError(sentence, "sign_in_ended", { status: 401 });
}

function makeSession(tokens, former = null) {
  const claims = oauth.getValidatedIdTokenClaims(tokens);
  const lifetime = tokens.expires_in * 1000;
  return {
    // `grant` names the sign-in, and `serial` counts its tokens.
    grant: former?.grant ?? oauth.generateRandomState(),
    serial: (former?.serial ?? 0) + 1,
    accessToken: tokens.access_token,
    refreshToken: tokens.refresh_token ?? former?.refreshToken ?? null,
    idToken: tokens.id_token ?? former?.idToken,
    renewAt: lifetime >= 0 ? Date.now() + lifetime - Math.min(RENEWAL_MARGIN_MS, lifetime / 10) : null,
    subject: claims?.sub ?? former?.subject,
    name: nameIn(claims) ?? former?.name ?? null,
  };
}

function nameIn(claims) {
  const names = [claims?.name, claims?.preferred_username, claims?.email];
  return names.find((name) => typeof name === "string" && name.trim()) ?? null;
}

/** Return the issuer and the page as its client, in the form of the library. */
async function openIssuer() {
  const described = await readSignIn();
  if (described.kind !== "oidc") {
    throw new ApiError("The server now signs users in another way. Reload this page.", "sign_in_changed");
  }
  const { issuer, token_endpoint, client_id, sends_issuer } = described;
  return {
    described,
    server: { issuer, token_endpoint, authorization_response_iss_parameter_supported: sends_issuer },
    client: { client_id, [oauth.clockTolerance]: CLOCK_TOLERANCE_SECONDS },
    options: {
      // The server refuses such an address, except of its own machine.
      [oauth.allowInsecureRequests]: new URL(token_endpoint).protocol === "http:",
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    },
  };
}

function isRefusal(error) {
  const kinds = [
    oauth.AuthorizationResponseError,
    oauth.ResponseBodyError,
    oauth.WWWAuthenticateChallengeError,
  ];
  return kinds.some((kind) => error instanceof kind);
}

function isTemporary({ error, status, cause }) {
  const known = status ?? cause?.status; // the cause of another kind of error is the response
  return known >= 500 || known === 429 || error === "temporarily_unavailable" || error === "server_error";
}

/** Return the error in words for the user; the issuer's own text could be anybody's. */
function toApiError(error) {
  if (error instanceof ApiError) return error;
  if (isTemporary(error)) {
    return new ApiError("The sign-in service is not available at the moment. Try again later.", "unreachable");
  }
  if (isRefusal(error)) {
    if (error.error === "access_denied") {
      return new ApiError("You were not signed in: you cancelled, or may not use this chatbot.", "access_denied");
    }
    const sentence = `The sign-in service refused this page${codeIn(error)}. Try again, or tell the server's operator.`;
    return new ApiError(sentence, "sign_in_refused");
  }
  if (error instanceof oauth.OperationProcessingError || error instanceof oauth.UnsupportedOperationError) {
    const sentence = "The answer of the sign-in service is not valid. Try again, or tell the server's operator.";
    return new ApiError(sentence, "sign_in_invalid");
  }
  return new ApiError("The sign-in service cannot be reached. Try again in a moment.", "unreachable");
}

/** Return the code of a refusal, which helps the operator, if it looks like one. */
function codeIn({ error }) {
  return /^[a-z_]{1,40}$/.test(error) ? ` (${error})` : "";
}
