// Figures: plotly.js is unpacked and draws them; a click on a run's dot leads to its row.
async function draw(packed) {
  const bytes = await fetch("data:application/gzip;base64," + packed.textContent);
  const text = bytes.body.pipeThrough(new DecompressionStream("gzip"));
  (0, eval)(await new Response(text).text());
  for (const place of document.querySelectorAll(".live")) {
    const figure = JSON.parse(place.firstChild.textContent);
    place.closest("figure").classList.add("drawn");
    await Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    place.on("plotly_click", (click) => {
      if (click.points[0].customdata) location.hash = click.points[0].customdata;
    });
  }
}
const packed = document.getElementById("library");
if (packed) draw(packed);

// Tables of runs: a click on a head sorts by it, text in the field above filters.
for (const table of document.querySelectorAll(".sortable")) {
  const [rows, heads] = [[...table.tBodies[0].rows], [...table.tHead.rows[0].cells]];
  const key = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent;
  heads.forEach((head, i) => {
    head.innerHTML = `<button>${head.innerHTML}</button>`;
    head.onclick = () => {
      const turn = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach((other) => (other.ariaSort = null));
      head.ariaSort = turn === 1 ? "ascending" : "descending";
      const order = (a, b) => a - b || a.localeCompare(b);
      rows.sort((a, b) => !key(a, i) - !key(b, i) || turn * order(key(a, i), key(b, i)));
      table.tBodies[0].append(...rows);
    };
  });
  table.closest("section").querySelector("input").oninput = ({ target }) =>
    rows.forEach((row) => (row.hidden = !row.textContent.toLowerCase().includes(target.value.toLowerCase())));
}
