// Days become instants (UTC): the API wants times with an offset.
"use strict";
document.getElementById("report").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams(new FormData(event.target));
  for (const name of ["since", "until"]) query.set(name, `${query.get(name)}T00:00:00Z`);
  window.location.href = `/v1/reports/impact?${query}`;
});
