// The page of this browser's keys.
"use strict";
(async () => {
  const box = document.getElementById("keys"), list = document.getElementById("key-list"), problem = document.getElementById("key-problem");
  const wrong = (error) => { problem.hidden = false; problem.textContent = error.message || String(error); };
  if (!await keys.supported()) { wrong(box.dataset.unsupported); return; }

  async function draw() {
    problem.hidden = true;
    list.textContent = "";
    const found = await keys.list();
    if (!found.length) list.textContent = box.dataset.none;
    for (const entry of found) {
      const part = document.createElement("article"), title = document.createElement("h2"), note = document.createElement("p"), line = document.createElement("pre"), button = document.createElement("button");
      title.textContent = `${entry.name} (${entry.role})`;
      note.textContent = box.dataset.line;
      line.textContent = keys.line(entry);
      button.textContent = box.dataset.remove;
      button.className = "plain";
      button.addEventListener("click", async () => {
        if (window.confirm(box.dataset.confirm)) { await keys.remove(entry.name); draw(); }
      });
      part.append(title, note, line, button);
      list.append(part);
    }
  }
  const on = (id, act) => document.getElementById(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.target;
    try {
      await act(new FormData(form));
      form.reset();
      await draw();
    } catch (error) { wrong(error); }
  });
  on("key-new", (data) => keys.create(data.get("name"), data.get("role")));
  on("key-import", (data) => keys.take(data.get("text")));
  await draw();
})();
