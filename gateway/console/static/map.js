// The map: countries from a file of this gateway (no tiles, no foreign host), trucks by how much they need somebody.
"use strict";
(() => {
  const element = document.getElementById("map");
  if (!element || !window.L) return;
  const map = L.map(element, { attributionControl: false, zoomControl: true, minZoom: 2, maxZoom: 11, preferCanvas: false });
  map.setView([2, 22], element.clientWidth < 500 ? 2 : 3);
  const places = L.layerGroup().addTo(map);
  let fitted = false, known = [];

  // Arcs are differences of integers; a ring is a list of arcs, ~i for arc i backwards (as in TopoJSON).
  function polygons(file) {
    const arcs = file.arcs.map((steps) => {
      const points = [];
      let x = 0, y = 0;
      for (let i = 0; i < steps.length; i += 2) {
        x += steps[i];
        y += steps[i + 1];
        points.push([y / file.per_degree, x / file.per_degree]);
      }
      return points;
    });
    const ring = (numbers) => numbers.flatMap((number, at) => {
      const points = number < 0 ? arcs[~number].slice().reverse() : arcs[number];
      return at ? points.slice(1) : points;
    });
    return file.countries.map(([name, parts]) => [name, parts.map((rings) => rings.map(ring))]);
  }

  async function drawLand() {
    const file = await (await fetch(element.dataset.shapes)).json();
    for (const [, parts] of polygons(file)) {
      L.polygon(parts, { className: "land", interactive: false, smoothFactor: 1 }).addTo(map).bringToBack();
    }
  }

  async function drawPlaces() {
    const answer = await fetch(element.dataset.places, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    known = await answer.json();
    if (!fitted && known.length) {
      map.fitBounds(L.latLngBounds(known.map((each) => each.at)).pad(0.3), { maxZoom: 5, animate: false });
      fitted = true;
    }
    showPlaces();
  }

  // A name is written beside its place where there is room; where there is none, it comes up under the pointer.
  function showPlaces() {
    places.clearLayers();
    const written = [];
    for (const each of known) {
      const marker = L.circleMarker(each.at, { radius: 7, className: `place level-${each.level}`, weight: 2 });
      const point = map.latLngToContainerPoint(each.at);
      const free = written.every((other) => Math.abs(other.x - point.x) > 150 || Math.abs(other.y - point.y) > 32);
      if (free) written.push(point);
      marker.bindTooltip(each.truck, { permanent: free, direction: "right", offset: [8, 0] });
      marker.on("click", () => { window.location.href = `/trucks/${encodeURIComponent(each.truck)}`; });
      marker.addTo(places);
    }
  }

  map.on("zoomend", showPlaces);
  drawLand();
  drawPlaces();
  document.addEventListener("htmx:afterSettle", (event) => { if (event.target.id === "rows") drawPlaces(); });
})();
