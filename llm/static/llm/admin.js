/* Small conveniences; every page works without them. */
"use strict";

const SECRET = /llm_[0-9A-Za-z]{20,}/g;

/* A key that is pasted into a search never leaves the browser whole: no server's log gets to see it. */
function reduceSecrets(text) {
  return text.replace(SECRET, (secret) => `${secret.slice(0, 12)}…${secret.slice(-4)}`);
}

function tidyBeforeSearch(form) {
  for (const field of form.elements) {
    if (field.type === "text" || field.type === "search") field.value = reduceSecrets(field.value);
    if (form.hasAttribute("data-drops-empty") && field.name && !field.value) field.disabled = true;
  }
}

function textOf(element) {
  return "value" in element ? element.value : element.textContent;
}

async function copyFrom(button) {
  const source = document.getElementById(button.dataset.copies);
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(textOf(source));
    button.textContent = "Copied";
  } catch {
    /* Without HTTPS there is no clipboard: select it, and people press the keys themselves. */
    if (source.select) source.select();
    else window.getSelection().selectAllChildren(source);
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = label; }, 2500);
}

for (const form of document.querySelectorAll('form[method="get"]')) {
  form.addEventListener("submit", () => tidyBeforeSearch(form));
}
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => copyFrom(button));
}
for (const field of document.querySelectorAll(".gw-secret input")) {
  field.addEventListener("focus", () => field.select());
}
/* One click, one key: the server refuses the second anyway. */
for (const form of document.querySelectorAll('form:has(input[name="form_token"])')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}
window.addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("[data-drops-empty] [disabled]")) field.disabled = false;
});

/* "/" leads to the search box, unless something is being typed. */
document.addEventListener("keydown", (event) => {
  const box = document.getElementById("gw-search");
  const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
  if (!box || event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  box.focus();
  box.select();
});

/* A chosen name becomes a line of the text that it belongs to. */
for (const button of document.querySelectorAll("[data-adds-line]")) {
  const field = button.previousElementSibling;
  const text = document.getElementById(button.dataset.addsLine);
  const add = () => {
    const names = text.value.split(/[\n,]/).map((name) => name.trim()).filter(Boolean);
    const name = field.value.trim();
    if (name && !names.includes(name)) text.value = [...names, name].join("\n");
    field.value = "";
    field.focus();
  };
  button.parentElement.hidden = false;
  button.addEventListener("click", add);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    add();
  });
}

/* Pickers that a library draws say nothing of the field that they stand for. */
function namePickers() {
  for (const picker of document.querySelectorAll(".select2-selection[role=combobox]:not([aria-label])")) {
    const field = picker.closest(".select2")?.previousElementSibling;
    const label = field?.labels?.[0]?.textContent ?? field?.name;
    if (!label) continue;
    const name = label.replace(/[:*\s]+$/u, "");
    picker.setAttribute("aria-label", name);
    picker.querySelector("[role=textbox]")?.setAttribute("aria-label", name);
  }
}

/* The library draws them at some moment after this script, and those of added rows later. */
if (document.querySelector(".admin-autocomplete")) {
  new MutationObserver(namePickers).observe(document.body, { childList: true, subtree: true });
  namePickers();
}

/* Fields in rows of a table are named by their column. */
function nameCells() {
  for (const field of document.querySelectorAll(".tabular td :is(input:not([type=hidden]), select, textarea):not([aria-label])")) {
    const heading = field.closest("table").querySelectorAll("thead th")[field.closest("td").cellIndex];
    const text = heading?.firstChild?.textContent.trim();
    if (text && !field.labels?.length) field.setAttribute("aria-label", text);
  }
}

nameCells();
document.addEventListener("formset:added", nameCells);
