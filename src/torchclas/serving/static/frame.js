// What surrounds both parts: language, light and dark.
import { button, say } from "./dom.js";
import { language, remember, remembered, setLanguage } from "./text.js";

/** Put the buttons for language and theme into `place`, and begin in the visitor's language. */
export function startFrame(place) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const theme = button("quiet", "theme.dark", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember("theme", root.dataset.theme);
    show();
  });
  const show = () => say(theme, isDark() ? "theme.light" : "theme.dark");
  const kept = remembered("theme");
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  dark.addEventListener("change", show);
  show();
  const other = button("quiet", "language", () => {
    setLanguage(language() === "zh" ? "en" : "zh");
    name();
    remember("language", language());
  });
  const name = () => (other.lang = language() === "zh" ? "en" : "zh-CN");
  place.append(other, theme);
  setLanguage(language());
  name();
}
