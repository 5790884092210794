// What furo's pages need to be used without a mouse, and by a screen reader.

const names = { en: ["Site", "This page"], zh: ["网站", "本页"] }[document.documentElement.lang.slice(0, 2)];

document.querySelectorAll("aside.sidebar-drawer, aside.toc-drawer").forEach((aside) => {
  aside.setAttribute("aria-label", names[aside.matches(".toc-drawer") ? 1 : 0]);
});

// The corner of a table with headings on two sides heads nothing.
document.querySelectorAll("th").forEach((heading) => {
  if (heading.textContent.trim() === "") heading.replaceWith(document.createElement("td"));
});

// What scrolls must be reached by the keyboard.
const reach = () => {
  document.querySelectorAll("pre, .table-wrapper").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
};
reach();
addEventListener("resize", reach);
