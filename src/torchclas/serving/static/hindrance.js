// What stands in the place of a part that the service does not give.
import { button, el } from "./dom.js";
import { useToken } from "./service.js";

let forms = 0;
let wrongToken = false; // whether a token has been refused

/** Why a part cannot be shown yet, and what to do: give the token, or ask again. */
export function hindrance(error, again) {
  if (error.kind !== "unauthorized") {
    const retry = button("plain", "try.again", again);
    return el("div", { className: "problem" }, error.node(), retry);
  }
  const id = `token-${++forms}`; // either tab may ask
  const field = el("input", { type: "password", id, autocomplete: "off", required: true });
  const form = el(
    "form",
    { className: "token" },
    el("h1", { t: "try.token.title" }),
    el("label", { htmlFor: id, t: "try.token" }),
    el("div", { className: "row" }, field, el("button", { className: "primary", t: "try.token.use" })),
    wrongToken ? el("p", { className: "why", role: "alert", t: "try.token.wrong" }) : null,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    wrongToken = true;
    useToken(field.value.trim());
    again();
  });
  return form;
}
