// A channel over a period: steps of hours and days from the rollups, every row for a day; a gap stays a gap.
"use strict";
(() => {
  const box = document.getElementById("chart");
  const form = document.getElementById("chart-form");
  if (!box || !form || !window.uPlot) return;
  let plot = null, asked = 0;
  // The gateway's time: this computer's clock may be wrong.
  const ahead = Number(box.dataset.now) - Date.now();
  const now = () => (Date.now() + ahead) / 1000;

  async function series(channel, days) {
    const until = Math.floor(now()) + 1;
    const step = days <= 2 ? 0 : days <= 40 ? 3600 : 86400;
    const query = new URLSearchParams({ channels: channel, since: until - days * 86400, until, step, limit: 20000 });
    const answer = await fetch(`/v1/trucks/${encodeURIComponent(box.dataset.truck)}/samples?${query}`);
    if (!answer.ok) throw new Error((await answer.json()).detail || answer.statusText);
    return (await answer.json()).series[0];
  }

  // uPlot draws a line through neighbours: a null between two values that have a gap between them breaks it.
  function withGaps(found) {
    const gaps = (found.gaps_ms || []).map(([from]) => from);
    const columns = [[], [], [], []];
    let next = 0;
    found.t_ms.forEach((time, at) => {
      while (next < gaps.length && gaps[next] <= time) {
        if (columns[0].length) {
          columns[0].push(gaps[next] / 1000);
          for (const each of columns.slice(1)) each.push(null);
        }
        next += 1;
      }
      columns[0].push(time / 1000);
      columns[1].push(found.v[at]);
      columns[2].push(found.min ? found.min[at] : null);
      columns[3].push(found.max ? found.max[at] : null);
    });
    return found.min ? columns : columns.slice(0, 2);
  }

  async function draw() {
    const data = new FormData(form), turn = ++asked;
    if (plot) { plot.destroy(); plot = null; }
    box.textContent = "…";
    let found;
    try {
      found = await series(data.get("channel"), Number(data.get("span")));
    } catch (error) {
      if (turn === asked) box.textContent = error.message;
      return;
    }
    if (turn !== asked) return; // another channel or period was chosen meanwhile
    box.textContent = "";
    if (!found || !found.t_ms.length) { box.textContent = box.dataset.empty; return; }
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const ink = dark ? "#cfd8dc" : "#333", grid = { stroke: dark ? "#ffffff1c" : "#0000001a" };
    const columns = withGaps(found);
    const until = now(), from = until - Number(data.get("span")) * 86400;
    const lines = [{}, { label: columns.length > 2 ? box.dataset.mean : found.n, stroke: "#0a7d55", width: 2, points: { show: found.t_ms.length < 60 } }];
    if (columns.length > 2) {
      lines.push({ label: box.dataset.low, stroke: "#0a7d5555" }, { label: box.dataset.high, stroke: "#0a7d5555" });
    }
    plot = new uPlot({
      width: box.clientWidth, height: 290, series: lines, scales: { x: { min: from, max: until } },
      bands: columns.length > 2 ? [{ series: [3, 2], fill: "#0a7d5522" }] : [],
      axes: [{ stroke: ink, grid }, { stroke: ink, grid, size: 60, label: found.u === "%EL" ? "%" : found.u, labelSize: 18 }],
    }, columns, box);
    box.dataset.points = String(found.t_ms.length);
  }

  form.addEventListener("change", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("resize", () => { if (plot) plot.setSize({ width: box.clientWidth, height: 290 }); });
  if (form.elements.channel.options.length) draw(); else box.textContent = box.dataset.empty;
})();
