// What every page needs: a question before what cannot be undone, copying, and a word when the line is gone.
"use strict";
(() => {
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent += " ✓";
    } catch {
      window.getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    }
  });
  const told = document.getElementById("told");
  document.addEventListener("htmx:sendError", () => { told.textContent = navigator.onLine ? "…" : "offline"; });
  document.addEventListener("htmx:afterOnLoad", () => { told.textContent = ""; });
})();
