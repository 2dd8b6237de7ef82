// The dialogs: add a stream, delete a stream, log in. Each shows the server's own words when it refuses.

import { byId, setText } from "./dom.js";

// `submit` gets the form's values; the dialog closes when it resolves, and shows the error when it rejects.
function bindDialog(name, submit) {
  const dialog = byId(`${name}-dialog`);
  const form = byId(`${name}-form`);
  const error = byId(`${name}-error`);
  const button = form.querySelector("[type=submit]");
  form.querySelector("[value=cancel]")?.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    setText(error, "");
    try {
      await submit(Object.fromEntries(new FormData(form)));
      dialog.close();
    } catch (exception) {
      setText(error, exception.message);
    } finally {
      button.disabled = false;
    }
  });
  return () => {
    form.reset();
    setText(error, "");
    dialog.showModal();
  };
}

export function bindAdd(buttons, create) {
  const open = bindDialog("add", ({ id, source }) => create({ id: id.trim(), source: source.trim() }));
  for (const button of buttons) button.addEventListener("click", open);
}

export function bindDelete(button, currentId, remove) {
  const open = bindDialog("delete", () => remove(byId("delete-id").textContent));
  button.addEventListener("click", () => {
    setText(byId("delete-id"), currentId());
    open();
  });
}

// `enter` gets the token. The dialog can't be left without one: there is nothing to see.
export function bindLogin(enter) {
  const dialog = byId("login-dialog");
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  const open = bindDialog("login", ({ token }) => enter(token.trim()));
  return (why) => {
    if (dialog.open) return;
    open();
    setText(byId("login-error"), why);
  };
}
