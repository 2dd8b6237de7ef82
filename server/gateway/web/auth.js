// The token that lets this page in. It is kept for this tab only, and in no address.

const KEY = "livesr-token";

// Taken from the address's fragment (#token=…), which is cleared at once: nobody bookmarks it or passes it on.
export function takeTokenFromAddress() {
  const [, token] = location.hash.match(/^#token=(.+)$/) ?? [];
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  logIn(token);
}

export const logIn = (token) => sessionStorage.setItem(KEY, token);
export const logOut = () => sessionStorage.removeItem(KEY);
export const loggedIn = () => sessionStorage.getItem(KEY) !== null;

// These headers, and who asks.
export function withToken(headers) {
  const token = sessionStorage.getItem(KEY);
  return token === null ? headers : { ...headers, authorization: `Bearer ${token}` };
}
